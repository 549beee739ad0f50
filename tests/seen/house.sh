# shellcheck shell=bash
# A house to live in: words, names, rooms. Points are those of the issue.

tests 1-words "no replaced word, no name for two things" 'test(/^words::/)'
tests 1-position "sent under both names, read under either" 'test(/sent_under_both_names/)'
tests 2-scheduler "fairness, all or none, no starvation, fallback, probing" 'test(/property::scheduler/)'
tests 3-ports "the adapters of every port keep its contract" 'test(/contract::(local|memory)::store/)'
tests 4-rooms "no circle of imports goes unseen" 'package(shape)'
tests 4-keys "a request key is known everywhere" 'test(/infra::keys/)'
tests 6-logs "JSON lines, their fields, audit lines, the queries of the manual" 'test(/^logs::/)'
tests 7-completions "commands and values of shells, manual pages" 'test(/e2e::completions|cli::help/)'
command_says shape "functions' lengths, long lines, circles, words" 'forbidden identifiers: 0' just shape
command_says mutations "each applies to the code as it is" 'all apply' tests/mutations.sh check
command_says 5-manual "commands that README and docs show" ' 0 failed' just manual
command_says 7-examples "settings, matrix, CI jobs, template" '^examples: ' just examples
command_says 7-release "built, packed, installed, used" "everything that needs no other machine passed" just release-check
