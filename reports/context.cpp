#include "context.hpp"

#include "../kernels/plugin/shell_word.hpp"

#include <openssl/evp.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <sched.h>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace kdacheck {
namespace {

/// First line that a shell command prints; empty if it fails.
std::string first_line(const std::string& command) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen((command + " 2>/dev/null </dev/null").c_str(), "r"), &::pclose);
  std::array<char, 512> line{};
  if (!pipe || !std::fgets(line.data(), line.size(), pipe.get())) return {};
  const std::string_view text(line.data());
  return std::string(text.substr(0, text.find_last_not_of("\r\n ") + 1));
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return {};
}

int usable_threads() {
  cpu_set_t set;
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

std::string program_hash() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> hash(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr);
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0)
    EVP_DigestUpdate(hash.get(), block.data(), static_cast<std::size_t>(file.gcount()));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  EVP_DigestFinal_ex(hash.get(), digest.data(), nullptr);
  std::string text;
  for (std::size_t i = 0; i < 8; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

} // namespace

Context this_context() {
  Context context;
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) == 0) context.host = host.data();
  context.cpu = cpu_model();
  context.threads = usable_threads();
  if (::access("/proc/driver/nvidia/version", R_OK) == 0) {
    const std::string line = first_line("timeout 10 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader");
    const auto comma = line.rfind(", ");
    context.gpu = line.substr(0, comma);
    if (comma != std::string::npos) context.driver = line.substr(comma + 2);
  }
  context.commit = first_line("git -C " + shell_word(KDACHECK_SOURCE_DIR) + " describe --always --dirty --abbrev=12 --exclude='*'");
  context.compiler = "g++ " __VERSION__;
  context.build = KDACHECK_BUILD_FLAGS;
  context.program = program_hash();
  context.started = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  return context;
}

} // namespace kdacheck
