# shellcheck shell=bash
# The runner: a program of ours around the command, for any image. Points are those of the issue.

tests 1-program "static, at most 15 MB, at home in an empty root" 'test(/runner::program/)'
tests 2-fetch "every kind of ref and server, as git clones" 'test(/runner::(clone|reach|submodules|large_files)/)'
tests 2-hostile "a repository runs nothing" 'test(/runner::hostile/)'
tests 3-run "signals, timeouts, daemons, descriptors, forged ends" 'test(/runner::keep|host::tests/)'
tests 4-images "scratch, busybox, no shell, read-only: Podman, Docker" 'test(/container_images::any_image/)'
tests 4-secrets "token, key and nonce are nowhere in a container" 'test(/container_images::nothing_of_ours|e2e::secrecy/)'
tests 4-crash-points "kill -9 of mycli at each point" 'test(/fault::points/)'
tests 4-crash-others "kill -9 of runner, container, Podman, Docker" 'test(/was_killed|fault::(surroundings|random)/)'
tests 5-words "API, bulk, rerun, history" 'test(/e2e::argv|request::command/)'
tests 5-clone "depth, submodules, large files by key and flag" 'test(/e2e::repository|request::depth/)'
tests 6-times "phases in record and status" 'test(/timing|the_time_of_each_phase/)'
command_says cases "1 2 4 6 7 9 13 14 17" ' 0 failed, 0 due later' just cases 1 2 4 6 7 9 13 14 17
command_says 7-speed ">= 0.25 of xargs, >= 25 x pueue, <= 8 ms over sh" 'In short: .*' just bench local
