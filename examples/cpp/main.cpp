// Runs a packaged model that holds q8ta operators, without Python:
//
//     mlp FOLDER OP_LIBRARY
//
// FOLDER is what export.py wrote, OP_LIBRARY the path of q8ta_ops/_torch_ops.so. Each sample's result is
// compared with Python's, bit for bit. The environment variable Q8TA_DEVICE chooses the device, as in Python.
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

/// Loading the library registers torch.ops.q8ta in this process.
void load_operators(const std::string& path) {
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw std::runtime_error(std::string("cannot load the op library: ") + dlerror());
  }
}

/// A list of tensors out of the dict that torch.save wrote.
std::vector<at::Tensor> tensors(const c10::IValue& samples, const char* key) {
  std::vector<at::Tensor> result;
  for (const c10::IValue& value : samples.toGenericDict().at(key).toListRef())
    result.push_back(value.toTensor());
  return result;
}

c10::IValue read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return torch::jit::pickle_load({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

/// Whether all results equal Python's.
bool run(const std::string& folder) {
  const c10::IValue samples = read(folder + "/samples.pt");
  const std::vector<at::Tensor> inputs = tensors(samples, "inputs");
  const std::vector<at::Tensor> expected = tensors(samples, "outputs");

  torch::inductor::AOTIModelPackageLoader model(folder + "/mlp.pt2");
  bool all_equal = true;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor result = model.run({inputs[i]}).at(0);
    const bool equal = at::equal(result, expected[i]);
    all_equal &= equal;
    std::cout << "batch " << inputs[i].size(0) << ": " << (equal ? "equal to" : "DIFFERENT from")
              << " Python's result; first row:";
    const at::Tensor row = result[0].contiguous();
    for (int64_t n = 0; n < row.numel(); ++n) std::cout << ' ' << row.const_data_ptr<float>()[n];
    std::cout << '\n';
  }
  return all_equal && !inputs.empty();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: mlp FOLDER OP_LIBRARY\n";
    return 2;
  }
  try {
    load_operators(argv[2]);
    return run(argv[1]) ? 0 : 1;
  } catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
