"""The cases of CPU tensors on vk: sizes, values, arrangements and errors, on each forced path of the kernels.

Every call asserts by the profile that the path's own kernel computed it.
"""

from test_errors import (  # noqa: F401  collected here, on vk
    test_an_error_in_the_middle_leaves_the_cache_right,
    test_backward_says_that_there_is_none,
    test_bad_input_names_the_argument,
    test_fake_tensors_give_the_same_errors,
    test_fake_tensors_have_the_real_results_properties,
    test_int8_results_never_require_grad,
)
from test_linear_inputs import (  # noqa: F401
    test_a_batch_of_single_rows_is_computed_whole,
    test_all_minus_128,
    test_expanded_and_higher_rank_views,
    test_float_steps_are_separate,
    test_large_bias,
    test_leading_sizes,
    test_longest_rows_with_extremes,
    test_padding_of_sums_scales_and_bias_is_never_used,
    test_reciprocal_is_taken_in_double,
    test_requantize_multiplies_by_the_reciprocal,
    test_saturation_on_both_sides,
    test_scale_products_are_rounded_in_order,
    test_strides_of_sums_scales_and_bias,
    test_strides_of_x_and_weights,
    test_ties_round_to_even,
    test_weight_sums_are_used_as_given,
    test_zero_points,
)
from test_linear_shapes import (  # noqa: F401
    test_gemv_size_grid,
    test_largest_pull_request_shape,
    test_pull_request_shapes,
    test_size_grid,
)
from test_requantize import (  # noqa: F401
    test_equals_dequantize_and_quantize_of_torch,
    test_errors_name_the_argument,
    test_every_value,
    test_opcheck,
    test_shapes,
    test_strided,
)
