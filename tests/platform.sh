#!/usr/bin/env bash
# No call of one operating system stands outside of the folders `platform` of `local` and `runner`, or mycli would not compile, or would do something else, on
# the other one. What is looked for: files of Linux, and what std, rustix and others have for one system only. The functions run on Linux
# alone, and so do the tests. Prints each line that is in the wrong place; exits with 1 if there is one.
#
# It knows the calls that we might use, and a compiler knows all of them: `just macos`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

calls='"/(proc|sys)/|\bos::(linux|macos|darwin|android)\b|\btarget_(os|vendor|env)\b|\b(cfg|cfg_attr)\((linux|macos|unix|windows)\b'
calls+='|set_child_subreaper|\bprctl|pidfd|memfd|inotify|eventfd|signalfd|timerfd|\bepoll|kqueue|close_range|mkfifo|mknod|\bfallocate|\bsendfile|copy_file_range'
calls+='|O_PATH|OFlags::(PATH|TMPFILE|NOATIME)|\b(openat2|statx|renameat2|renameat_with|unshare|setns|landlock)\b|\bprocfs\b|\blibproc\b|\bsysinfo\b'

found=$(git ls-files --cached --others --exclude-standard 'cli/*.rs' 'crates/*.rs' |
  grep -vE '^crates/(local|runner)/src/platform(\.rs|/)' |
  xargs grep -nHE -- "$calls" | grep -vE '^[^:]*:[0-9]+: *//' || true)
[ -z "$found" ] || {
  echo "calls of one operating system, outside of the folders platform:" >&2
  printf '%s\n' "$found" >&2
  exit 1
}
