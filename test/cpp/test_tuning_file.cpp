#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "kernels/tuning_file.h"
#include "kernels/warning.h"
#include "samples.h"
#include "threads.h"

namespace q8ta::test {
namespace {

namespace fs = std::filesystem;

int warnings = 0;

/// A tuning file of its own, in a folder that goes at the end; counts warnings meanwhile.
class TemporaryFile {
 public:
  TemporaryFile() : folder_(fs::temp_directory_path() / ("q8ta-tuning-" + std::to_string(getpid()))) {
    setenv("Q8TA_TUNE_CACHE", path().c_str(), 1);
    warnings = 0;
    kernels::set_warning_handler([](const std::string&) { ++warnings; });
  }
  ~TemporaryFile() {
    kernels::set_warning_handler([](const std::string& text) { MESSAGE(text); });
    setenv("Q8TA_TUNE_CACHE", "/nonexistent/tuning.txt", 1);
    fs::remove_all(folder_);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  fs::path path() const { return folder_ / "below" / "tuning.txt"; }

  std::string text() const {
    std::ifstream stream(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  }
  void write(const std::string& text) const { std::ofstream(path(), std::ios::binary) << text; }

 private:
  fs::path folder_;
};

kernels::TuningFile file_of(const std::string& name) {
  vulkan::DeviceInfo info;
  info.name = name;
  info.driver = "driver\t1\n2";
  return kernels::TuningFile(info);
}

using Variants = std::map<std::string, std::string>;

}  // namespace

TEST_CASE("tuning file: what is added is read, by its device alone, the last of a class") {
  const TemporaryFile temporary;
  const kernels::TuningFile a = file_of("device a");
  const kernels::TuningFile b = file_of("device b");
  CHECK(a.read().empty());
  a.add("M1 K2 N3 int8", "first 1", 2.5);
  a.add("M1 K2 N3 int8", "second 1", 1.5);
  a.add("M4 K2 N3 int8", "third", 0);
  b.add("M1 K2 N3 int8", "other", 1e9);
  CHECK(a.read() == Variants{{"M1 K2 N3 int8", "second 1"}, {"M4 K2 N3 int8", "third"}});
  CHECK(b.read() == Variants{{"M1 K2 N3 int8", "other"}});
  CHECK(warnings == 0);
}

TEST_CASE("tuning file: whatever bytes it holds, reading ends, with a warning or with what was there") {
  const TemporaryFile temporary;
  const kernels::TuningFile file = file_of("device");
  for (int i = 0; i < 6; ++i) file.add("class " + std::to_string(i), "variant", i);
  const Variants all = file.read();
  const std::string good = temporary.text();
  for (size_t length = 0; length < good.size(); ++length) {
    temporary.write(good.substr(0, length));
    for (const auto& [shape_class, variant] : file.read()) REQUIRE(all.at(shape_class) == variant);
  }
  Numbers numbers(13);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    for (uint32_t flips = 1 + numbers.below(4); flips > 0; --flips) {
      const uint32_t place = numbers.below(static_cast<uint32_t>(bad.size()));
      switch (numbers.below(3)) {
        case 0:
          bad[place] = static_cast<char>(numbers.byte());
          break;
        case 1:
          bad.erase(place, 1 + numbers.below(9));
          break;
        default:
          bad.insert(place, std::string(1 + numbers.below(9), "\t\n\0"[numbers.below(3)]));
      }
      if (bad.empty()) bad = "\n";
    }
    temporary.write(bad);
    REQUIRE(file.read().size() <= 12);
  }
  CHECK(warnings > 1000);
  temporary.write("something else");
  file.add("class", "variant", 1);
  CHECK(file.read() == Variants{{"class", "variant"}});
}

TEST_CASE("tuning file: several writers lose nothing") {
  const TemporaryFile temporary;
  CHECK(failure_in_threads(4, [](int thread) {
          const kernels::TuningFile file = file_of("device");
          for (int i = 0; i < 10; ++i) {
            file.add("class " + std::to_string(thread) + " " + std::to_string(i), "variant", 1);
            file.read();
          }
        }) == "");
  CHECK(file_of("device").read().size() == 40);
  CHECK(warnings == 0);
}

}  // namespace q8ta::test
