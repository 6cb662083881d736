#pragma once

#include <pybind11/pybind11.h>

namespace q8ta {

/// From now on the weight caches hear when the storage of a weight dies, by a weak reference to its Python
/// object: the stable ABI has no weak pointers, but a storage keeps its Python object for as long as it
/// lives. `take_tensors` is torch's function that makes tensors of the handles in a list, which it takes
/// over.
///
/// All of this is done by C functions. Where Python code runs, the handler of a signal may run, too: what it
/// raises (KeyboardInterrupt) would be lost here, in the middle of an operator.
void watch_storages(pybind11::object take_tensors);

}  // namespace q8ta
