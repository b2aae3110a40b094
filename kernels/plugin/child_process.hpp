#pragma once
// A child process that may crash, hang or flood without harm.

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace kdacheck::plugin {

/// How a child ended, or that it has not.
struct ChildEnd {
  bool ended = false;
  std::string how; ///< "ended with status 3", "was killed by signal 11 (Segmentation fault): what it said last"
  int status = 0;  ///< as of waitpid
};

/// How parent and child talk. `control`: a socket as descriptor 3, any further descriptors from 5 on; standard input and
/// output are /dev/null. `standard`: the socket is the child's standard input and output.
enum class Channel : unsigned char { control, standard };

/// The program that loads shared libraries and supervises (supervisor.hpp): as built, or where KDACHECK_WORKER_PATH says,
/// for a gate that was carried to another machine.
std::string worker_program();

/// A command, looked up in PATH, under a supervisor (supervisor.hpp): whatever it starts ends with it, and all of them when
/// this process ends in whatever way. Of standard error the end is held for last_words(), if it is not let through.
/// `folder` is removed at the end.
class ChildProcess {
public:
  ChildProcess(const std::vector<std::string>& command, Channel, const std::vector<int>& descriptors, bool keep_standard_error,
               const std::string& folder = {});
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess(); ///< ends and reaps everything

  /// Writes one byte; false if the child is gone.
  bool signal_child(char what);
  /// Waits for one byte from the child: 1 got it, 0 time is up, -1 the child is gone. Throws CallAbandoned.
  int wait_for_child(char& what, std::chrono::milliseconds patience);

  /// Writes a line; false if the child is gone.
  bool send_line(const std::string&);
  /// Reads a line without its end, of at most `limit` bytes: 1 got it, 0 time is up, -1 the child is gone, -2 too long. Throws
  /// CallAbandoned.
  int read_line(std::string& line, std::chrono::milliseconds patience, std::size_t limit = std::size_t{1} << 20);

  bool silent(); ///< alive, and nothing has been said that was not read
  /// The last line of the standard error of a process that has ended, of bounded length, or nothing.
  std::string last_words() const;
  /// Waits a little for a child that closed its socket to end, then kills it.
  ChildEnd finish();
  void kill_child();

private:
  /// Waits until there is something to receive: 1 there is, 0 time is up, -1 trouble.
  int wait_until(std::chrono::steady_clock::time_point deadline);

  int pid_ = -1, control_ = -1, lifeline_ = -1, said_ = -1;
  std::string received_; ///< bytes after the last line read
  ChildEnd end_;
};

} // namespace kdacheck::plugin
