# Q8TA_SANITIZE: "address,undefined" or "thread" instruments everything that is built here; scripts/sanitize.sh builds
# and runs both. Not for use: it is several times slower, and Python must preload the sanitizer's runtime.
set(Q8TA_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize names them; empty: none")
if(NOT Q8TA_SANITIZE)
  return()
endif()
set(sanitizers ${Q8TA_SANITIZE})
if(sanitizers MATCHES "undefined")
  # Not part of "undefined", but a float that an int8 cannot hold is what a quantization gets wrong first.
  string(APPEND sanitizers ",float-cast-overflow")
endif()
# -O1: reports name the functions that the source has. -g1: with their lines; more takes minutes more.
add_compile_options(-fsanitize=${sanitizers} -fno-omit-frame-pointer -g1 -O1)
add_link_options(-fsanitize=${sanitizers})
# The standard library's own checks of indexes, iterators and empty optionals.
add_compile_definitions(_GLIBCXX_ASSERTIONS)
# pybind11 optimizes at link time unless this is said: slow to build, and frames are missing in reports.
set(CMAKE_INTERPROCEDURAL_OPTIMIZATION OFF)
