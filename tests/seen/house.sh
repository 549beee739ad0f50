# shellcheck shell=bash
# A house to live in: words, names, rooms. Points are those of the issue.

tests 1-words "no replaced word, no name for two things" 'test(/^words::/)'
tests 1-position "sent under both names, read under either" 'test(/sent_under_both_names/)'
tests 4-rooms "no circle of imports goes unseen" 'package(shape)'
command_says shape "functions' lengths, long lines, circles, words" 'forbidden identifiers: 0' just shape
command_says mutations "each applies to the code as it is" 'all apply' tests/mutations.sh check
