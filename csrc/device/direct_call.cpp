#include "device/direct_call.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <structmember.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <array>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace q8ta::device {
namespace {

enum class Kind { tensor, optional_tensor, number, integer, text };

struct Argument {
  Kind kind;
  std::optional<c10::IValue> if_absent;
  // The text that was given last, and what was made of it: programs give the same object again and again.
  py::object last_text;
  c10::IValue last_value;
};

/// The object in Python. Its first members are what CPython reads and writes.
struct DirectCall {
  PyObject_HEAD vectorcallfunc call;
  PyObject* general;
  c10::OperatorHandle op;
  std::vector<Argument> arguments;
};

DirectCall& direct_call_of(PyObject* self) { return *reinterpret_cast<DirectCall*>(self); }  // NOLINT

std::optional<Kind> kind_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return Kind::tensor;
    case c10::TypeKind::FloatType:
      return Kind::number;
    case c10::TypeKind::IntType:
      return Kind::integer;
    case c10::TypeKind::StringType:
      return Kind::text;
    case c10::TypeKind::OptionalType:
      if (type.containedType(0)->kind() == c10::TypeKind::TensorType) return Kind::optional_tensor;
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

std::optional<c10::IValue> converted_text(Argument& argument, PyObject* given) {
  if (given == argument.last_text.ptr()) return argument.last_value;
  Py_ssize_t size = 0;
  const char* text = PyUnicode_CheckExact(given) ? PyUnicode_AsUTF8AndSize(given, &size) : nullptr;
  if (text == nullptr) {
    PyErr_Clear();  // of a string that is no UTF-8
    return std::nullopt;
  }
  argument.last_value = c10::IValue(std::string(text, static_cast<size_t>(size)));
  argument.last_text = py::reinterpret_borrow<py::object>(given);
  return argument.last_value;
}

/// The value of an argument of that kind; none if converting it takes more than looking at it.
std::optional<c10::IValue> converted(Argument& argument, PyObject* given) {
  switch (argument.kind) {
    case Kind::optional_tensor:
      if (given == Py_None) return c10::IValue();
      [[fallthrough]];
    case Kind::tensor:
      if (!THPVariable_CheckExact(given)) return std::nullopt;
      return c10::IValue(THPVariable_Unpack(given));
    case Kind::number:
      if (!PyFloat_CheckExact(given)) return std::nullopt;
      return c10::IValue(PyFloat_AS_DOUBLE(given));
    case Kind::integer: {
      if (!PyLong_CheckExact(given)) return std::nullopt;
      int overflow = 0;
      const int64_t value = PyLong_AsLongLongAndOverflow(given, &overflow);
      if (overflow != 0) return std::nullopt;
      return c10::IValue(value);
    }
    case Kind::text:
      return converted_text(argument, given);
  }
  return std::nullopt;
}

/// Whether it was a plain call, whose arguments then lie on the stack.
bool put_on_stack(DirectCall& self, PyObject* const* given, size_t count, torch::jit::Stack& stack) {
  if (count > self.arguments.size() || at::impl::torch_function_mode_enabled()) return false;
  stack.reserve(self.arguments.size());
  for (size_t i = 0; i < self.arguments.size(); ++i) {
    Argument& argument = self.arguments[i];
    std::optional<c10::IValue> value = i < count ? converted(argument, given[i]) : argument.if_absent;
    if (!value) return false;
    stack.push_back(std::move(*value));
  }
  return true;
}

/// py::gil_scoped_release without what that does besides, which takes 40 ns.
class WithoutGil {
 public:
  WithoutGil() : thread_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(thread_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* thread_;
};

PyObject* call(PyObject* object, PyObject* const* given, size_t count_and_flag, PyObject* names) {
  HANDLE_TH_ERRORS
  DirectCall& self = direct_call_of(object);
  torch::jit::Stack stack;
  const bool plain =
      names == nullptr &&
      put_on_stack(self, given, static_cast<size_t>(PyVectorcall_NARGS(count_and_flag)), stack);
  if (!plain) {
    stack.clear();
    return PyObject_Vectorcall(self.general, given, count_and_flag, names);
  }
  {
    const WithoutGil released;
    self.op.callBoxed(stack);
  }
  return THPVariable_Wrap(std::move(stack.front()).toTensor());
  END_HANDLE_TH_ERRORS
}

Py_hash_t hash(PyObject* object) { return PyObject_Hash(direct_call_of(object).general); }

PyObject* attribute(PyObject* object, PyObject* name) {
  return PyObject_GetAttr(direct_call_of(object).general, name);
}

int set_attribute(PyObject* object, PyObject* name, PyObject* value) {
  return PyObject_SetAttr(direct_call_of(object).general, name, value);
}

void destroy(PyObject* object) {
  DirectCall& self = direct_call_of(object);
  PyTypeObject* type = Py_TYPE(object);
  Py_DECREF(self.general);
  self.op.~OperatorHandle();
  self.arguments.~vector();
  type->tp_free(object);
  Py_DECREF(type);
}

PyTypeObject* direct_call_type() {
  static std::array<PyMemberDef, 2> members{{
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(DirectCall, call), READONLY, nullptr},
      {},
  }};
  static std::array<PyType_Slot, 7> slots{{
      {Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},  // NOLINT
      {Py_tp_hash, reinterpret_cast<void*>(&hash)},               // NOLINT
      {Py_tp_getattro, reinterpret_cast<void*>(&attribute)},      // NOLINT
      {Py_tp_setattro, reinterpret_cast<void*>(&set_attribute)},  // NOLINT
      {Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},         // NOLINT
      {Py_tp_members, members.data()},
      {},
  }};
  static PyType_Spec spec{"q8ta_ops.DirectCall", sizeof(DirectCall), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL, slots.data()};
  static auto* const type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));  // NOLINT
  if (type == nullptr) throw py::error_already_set();
  return type;
}

}  // namespace

py::object direct_call(const py::object& general, const std::string& name) {
  const c10::OperatorHandle op = c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "");
  std::vector<Argument> arguments;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const std::optional<Kind> kind = kind_of(*argument.type());
    if (!kind) return general;
    arguments.push_back({*kind, argument.default_value(), {}, {}});
  }
  PyTypeObject* type = direct_call_type();
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) throw py::error_already_set();
  DirectCall& made = direct_call_of(object);
  made.call = &call;
  made.general = general.inc_ref().ptr();
  new (&made.op) c10::OperatorHandle(op);
  new (&made.arguments) std::vector<Argument>(std::move(arguments));
  return py::reinterpret_steal<py::object>(object);
}

}  // namespace q8ta::device
