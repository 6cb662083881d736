#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace q8ta::device {

/// A callable that does what `general`, torch's own of the operator, does, in less than half of the host's
/// time where the call is a plain one: all arguments by position, tensors that are no subclass, no torch
/// function mode. All other calls are handed to `general`. Its hash and its attributes are those of
/// `general`.
///
/// torch's own callable finds out the overload, asks each argument's class in Python whether it is a tensor,
/// and converts arguments by the schema as if they could be anything: 3 of the 5 microseconds that queueing
/// an operator took. From the dispatcher on, both do the same.
pybind11::object direct_call(const pybind11::object& general, const std::string& name);

}  // namespace q8ta::device
