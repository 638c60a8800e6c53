// The module torchact._kernels. Importing it loads this library, which registers the operators. Its own functions take
// addresses: in a training step, which throws code out of the caches, torch's way to an operator takes longer than
// reducing a small tensor does.
#include <Python.h>

#include <algorithm>
#include <array>
#include <exception>
#include <new>
#include <vector>

#include "sums.h"

namespace torchact {
namespace {

constexpr int64_t kLong = 1 << 16;  // numbers that are reduced without the interpreter's lock

template <std::size_t count>
using Numbers = std::array<int64_t, count>;

// Lets other threads of Python run meanwhile.
class Unlocked {
 public:
  explicit Unlocked(bool wanted) : state_(wanted ? PyEval_SaveThread() : nullptr) {}
  Unlocked(const Unlocked&) = delete;
  ~Unlocked() {
    if (state_) PyEval_RestoreThread(state_);
  }

 private:
  PyThreadState* const state_;
};

template <class T>
T* pointer(int64_t address) {
  return reinterpret_cast<T*>(address);
}

// Reads the whole numbers that Python gives; false where they are none, or not so many.
template <std::size_t count>
bool read(PyObject* const* given, Py_ssize_t size, Numbers<count>& numbers) {
  if (size != Py_ssize_t(count)) {
    PyErr_Format(PyExc_TypeError, "expected %zd whole numbers, got %zd", Py_ssize_t(count), size);
    return false;
  }
  for (std::size_t i = 0; i < count; ++i) {
    numbers[i] = PyLong_AsLongLong(given[i]);
    if (numbers[i] == -1 && PyErr_Occurred()) return false;
  }
  return true;
}

// Sets Python's error to the C++ exception that is being handled.
PyObject* raise() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

// Calls `work` with the whole numbers that Python gives.
template <std::size_t count, void (*work)(const Numbers<count>&)>
PyObject* call(PyObject*, PyObject* const* given, Py_ssize_t size) {
  Numbers<count> numbers;
  if (!read(given, size, numbers)) return nullptr;
  try {
    work(numbers);
  } catch (...) {
    return raise();
  }
  Py_RETURN_NONE;
}

cpu::Source source(const int64_t* flat) { return {pointer<const void>(flat[0]), flat[1], Type(flat[2])}; }

cpu::Statistics reduced(const cpu::Source& source, const cpu::Intervals& intervals, cpu::Counted counted) {
  const Unlocked unlocked(source.count >= kLong);
  return std::move(cpu::statistics({&source, 1}, intervals, counted)[0]);
}

std::vector<cpu::Statistics> reduced(const std::vector<cpu::Source>& sources, int64_t total) {
  const Unlocked unlocked(total >= kLong);
  return cpu::statistics(sources, {}, cpu::Counted::moments);
}

// (sums, whether they have bins, address, count, type)
void add_statistics(const Numbers<5>& n) {
  double* sums = pointer<double>(n[0]);
  merge(sums, n[3], reduced(source(&n[2]), {}, n[1] ? cpu::Counted::bins : cpu::Counted::moments));
}

// (sums, the intervals' lower ends and behind them their upper ends, how many, address, count, type)
void add_within(const Numbers<6>& n) {
  double* sums = pointer<double>(n[0]);
  const double* low = pointer<const double>(n[1]);
  count(sums, n[4], reduced(source(&n[3]), {int(n[2]), low, low + n[2]}, cpu::Counted::within));
}

// (largest, outer, units, inner, address, count, type)
void add_largest_of_units(const Numbers<7>& n) {
  const cpu::Source from = source(&n[4]);
  const Unlocked unlocked(from.count >= kLong);
  cpu::largest_of_units(from.data, from.type, n[1], n[2], n[3], pointer<float>(n[0]));
}

// Returns the statistics of each tensor of a list of (address, count, type): kMoments float64 numbers for each.
PyObject* statistics_of_each(PyObject*, PyObject* list) {
  if (!PyList_Check(list)) return PyErr_Format(PyExc_TypeError, "expected a list, got %R", list);
  const Py_ssize_t size = PyList_Size(list);
  try {
    std::vector<cpu::Source> sources;
    int64_t total = 0;
    for (Py_ssize_t i = 0; i < size; ++i) {
      PyObject* item = PyList_GetItem(list, i);
      if (!PyTuple_Check(item) || PyTuple_Size(item) != 3)
        return PyErr_Format(PyExc_TypeError, "expected (address, count, type), got %R", item);
      PyObject* numbers[3] = {PyTuple_GetItem(item, 0), PyTuple_GetItem(item, 1), PyTuple_GetItem(item, 2)};
      Numbers<3> flat;
      if (!read(numbers, 3, flat)) return nullptr;
      sources.push_back(source(flat.data()));
      total += flat[1];
    }
    std::vector<double> sums(size * kMoments);
    double* out = sums.data();
    std::size_t i = 0;
    for (const cpu::Statistics& s : reduced(sources, total)) merge(out, sources[i++].count, s);
    return PyByteArray_FromStringAndSize(reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(double));
  } catch (...) {
    return raise();
  }
}

// Returns the float64 numbers at an address, and whether all are finite; and sets them to zero.
PyObject* take(PyObject*, PyObject* const* given, Py_ssize_t size) {
  Numbers<2> n;
  if (!read(given, size, n)) return nullptr;
  double* from = pointer<double>(n[0]);
  PyObject* taken = PyByteArray_FromStringAndSize(reinterpret_cast<const char*>(from), n[1] * sizeof(double));
  if (!taken) return nullptr;
  const bool finite = std::all_of(from, from + n[1], [](double x) { return x - x == 0; });
  std::fill_n(from, n[1], 0.0);
  return Py_BuildValue("(NO)", taken, finite ? Py_True : Py_False);
}

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

PyMethodDef method(const char* name, Fast function) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, nullptr};
}

PyMethodDef methods[] = {
    method("add_statistics", call<5, add_statistics>),
    method("add_within", call<6, add_within>),
    method("add_largest_of_units", call<7, add_largest_of_units>),
    {"statistics_of_each", statistics_of_each, METH_O, nullptr},
    method("take", take),
    {},
};

}  // namespace
}  // namespace torchact

PyMODINIT_FUNC PyInit__kernels(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", nullptr, 0, torchact::methods};
  return PyModule_Create(&definition);
}
