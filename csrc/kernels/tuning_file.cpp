#include "kernels/tuning_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <system_error>

#include "kernels/warning.h"
#include "vulkan/shader.h"

namespace q8ta::kernels {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFirstLine = "q8ta-ops tuning 1";
constexpr size_t kFields = 6;
constexpr uintmax_t kMostBytes = 16U << 20U;  // a hundred thousand lines

fs::path environment_path(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? fs::path() : fs::path(value);
}

fs::path cache_folder() {
  if (const fs::path folder = environment_path("XDG_CACHE_HOME"); folder.is_absolute()) return folder;
  const fs::path home = environment_path("HOME");
  if (home.empty()) return {};
#ifdef __APPLE__
  return home / "Library" / "Caches";
#else
  return home / ".cache";
#endif
}

/// Changes whenever a kernel does: what was measured with another one means nothing.
std::string fingerprint_of_kernels() {
  uint64_t hash = 0xCBF2'9CE4'8422'2325U;
  const auto mix = [&hash](uint64_t value) { hash = (hash ^ value) * 0x0000'0100'0000'01B3U; };
  for (const vulkan::Shader& shader : vulkan::embedded_shaders()) {
    if (!shader.name.starts_with("linear_")) continue;
    for (const char letter : shader.name) mix(static_cast<unsigned char>(letter));
    for (const uint32_t word : shader.code) mix(word);
  }
  std::array<char, 16> digits{};
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), hash, 16);
  return {digits.data(), end};
}

std::string without_separators(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char letter) { return letter == '\t' || letter == '\n'; }, ' ');
  return text;
}

[[noreturn]] void fail(const std::string& what, int error) {
  throw std::system_error(error, std::generic_category(), what);
}

/// Keeps other processes from replacing the file meanwhile.
class FileLock {
 public:
  explicit FileLock(const fs::path& path)
      : descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail("cannot open " + path.string(), errno);
    while (::flock(descriptor_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      ::close(descriptor_);
      fail("cannot lock " + path.string(), error);
    }
  }
  ~FileLock() { ::close(descriptor_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

/// Empty if it cannot be read, or is no file that ends: a pipe would be waited for.
std::string read_file(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error) || fs::file_size(path, error) > kMostBytes) return "";
  try {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  } catch (const std::exception&) {  // a folder
    return "";
  }
}

void replace_file(const fs::path& path, const std::string& text) {
  fs::path temporary = path;
  temporary += ".new";  // one writer at a time
  fs::remove(temporary);
  {
    std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
    stream << text;
    stream.flush();
    if (!stream) fail("cannot write " + temporary.string(), EIO);
  }
  fs::rename(temporary, path);
}

}  // namespace

TuningFile::TuningFile(const vulkan::DeviceInfo& info)
    : device_(without_separators(info.name)),
      driver_(without_separators(info.driver)),
      kernels_(fingerprint_of_kernels()) {}

fs::path TuningFile::path() {
  if (fs::path named = environment_path("Q8TA_TUNE_CACHE"); !named.empty()) return named;
  const fs::path folder = cache_folder();
  return folder.empty() ? fs::path() : folder / "q8ta-ops" / "tuning.txt";
}

std::optional<TuningFile::Line> TuningFile::parse(const std::string& text) {
  std::vector<std::string> fields;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\t', begin), text.size());
    fields.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (fields.size() != kFields) return std::nullopt;
  if (std::any_of(fields.begin(), fields.end(), [](const std::string& field) { return field.empty(); })) {
    return std::nullopt;
  }
  const std::string& time = fields.back();
  if (time.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return Line{fields[0], fields[1], fields[2], fields[3], fields[4], time};
}

std::vector<TuningFile::Line> TuningFile::read_lines() {
  const fs::path file = path();
  std::error_code error;
  if (file.empty() || !fs::exists(file, error)) return {};
  const std::string text = read_file(file);
  const std::string first_line = std::string(kFirstLine) + "\n";
  std::vector<Line> lines;
  bool right = text.starts_with(first_line) && text.back() == '\n';  // else the last line is cut off
  for (size_t begin = first_line.size(); right && begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const std::optional<Line> line = parse(text.substr(begin, end - begin));
    right = line.has_value();
    if (right) lines.push_back(*line);
    begin = end + 1;
  }
  if (right) return lines;
  warn("the tuning file " + file.string() + " is damaged or something else, and is ignored");
  return {};
}

std::map<std::string, std::string> TuningFile::read() const {
  std::map<std::string, std::string> variants;
  for (const Line& line : read_lines()) {
    if (line.device == device_ && line.driver == driver_ && line.kernels == kernels_) {
      variants[line.shape_class] = line.variant;
    }
  }
  return variants;
}

void TuningFile::add(const std::string& shape_class, const std::string& variant, double us) const {
  const fs::path file = path();
  if (file.empty()) return;
  try {
    if (file.has_parent_path()) fs::create_directories(file.parent_path());
    fs::path lock_path = file;
    lock_path += ".lock";
    const FileLock lock(lock_path);
    std::vector<Line> lines = read_lines();
    std::erase_if(lines, [&](const Line& line) {  // of this device only what is still true
      const bool outdated = line.driver != driver_ || line.kernels != kernels_;
      return line.device == device_ && (outdated || line.shape_class == shape_class);
    });
    lines.push_back(
        {device_, driver_, kernels_, shape_class, variant, std::to_string(std::llround(us * 1000))});
    std::string text = std::string(kFirstLine) + "\n";
    for (const Line& line : lines) {
      text += line.device + "\t" + line.driver + "\t" + line.kernels + "\t" + line.shape_class + "\t" +
              line.variant + "\t" + line.nanoseconds + "\n";
    }
    replace_file(file, text);
  } catch (const std::exception& error) {
    warn(std::string("what was tuned is not kept: ") + error.what());
  }
}

}  // namespace q8ta::kernels
