# shellcheck shell=sh
# shellcheck disable=SC2034 # both stages share names, and some fields are read to be passed over
# Stage 2: runs the command as a child and sees it to its end. Also read by stage 1, which watches over the set-up in the same way.
#
# Every name begins with mycli_, because the user's variables live in this shell too. Nothing here relies on IFS, PATH or errexit.
# Arguments: command, timeout in seconds (may be empty), grace in seconds, path of an `env` with --default-signal (empty: not known).
# The nonce is one line on fd 3, so that neither argv nor the initial environment of any process holds it, or set already by stage 1.
# The real stderr is fd 4 here: fd 2 would carry the shell's remarks on its jobs.

# Says word $1 on stderr, or on fd $2. One line, one write(2): a line longer than PIPE_BUF could be torn by the command's own output. 1 is the version of its form.
# Where the command can read what was said before, the nonce is a list of `word=token`: no token tells another word's.
mycli_mark() {
	mycli_seal=${mycli_nonce##*"${1%%:*}="}
	printf '::mycli:%s:1:%s\n' "${mycli_seal%% *}" "$1" >&"${2:-4}"
}

# Ends with status $1. Two pipes lead to the log, and one may be read later than the other: only when both have told their end is all in it.
# Nobody may be there to read any more, which is no reason to end otherwise.
mycli_leave() {
	trap '' PIPE
	mycli_mark ended
	mycli_mark ended 1
	exit "$1"
}

# Whole seconds since boot, without a fork; empty where /proc is not mounted.
mycli_clock() {
	mycli_now=''
	[ -r /proc/uptime ] || return 0
	# A signal that has a trap cuts a `read` short.
	until IFS=' .' read -r mycli_now mycli_rest </proc/uptime; do :; done
}

# The timer, a child of ours: sleeps for $1 seconds, then sends us ALRM. A sleep that the command killed (`pkill sleep`) is slept on; without
# a sleep in the image the limit that ECS is held to remains. A shell that a child's end woke (CHLD) would need no such child, but dash
# forgets the status of what a trap interrupts in another trap, and children end at any time: it took a timer that ran for one that had ended.
mycli_time() {
	# $! is the command's process until a sleep is there. What we trap ourselves would get lost between the fork and this line.
	trap '[ "$!" = "$mycli_child" ] || { kill -KILL "$!" && wait "$!"; }; exit 0' USR1
	mycli_left=$1
	while [ "$mycli_left" -gt 0 ]; do
		# The PATH is the user's and may hide it. To load the user's locale would take it longer than all else it does before it sleeps.
		PATH="${PATH-}:/usr/bin:/bin" LC_ALL=C sleep "$mycli_left" &
		wait "$!"
		mycli_status=$?
		[ "$mycli_status" -ne 0 ] || break
		[ "$mycli_status" -gt 128 ] || exit 0
		mycli_clock
		mycli_left=$((mycli_deadline - ${mycli_now:-0}))
	done
	kill -s ALRM "$$"
}

# The timer holds none of the command's pipes open.
mycli_arm() {
	mycli_clock
	mycli_deadline=$((${mycli_now:-0} + $1))
	trap mycli_on_alarm ALRM
	mycli_time "$1" >/dev/null 4>&- &
	mycli_timer=$!
}

# Also within a trap, where bash may wait in vain: whoever can waits for the timer's end himself.
mycli_disarm() {
	[ -z "$mycli_timer" ] || kill -s USR1 "$mycli_timer"
	mycli_timer=''
}

# Does process $1 still run? A zombie does not.
mycli_runs() {
	[ -r /proc/self/stat ] || {
		kill -0 "$1"
		return
	}
	until read -r mycli_line <"/proc/$1/stat"; do
		[ -d "/proc/$1" ] || return
	done
	case ${mycli_line##*) } in Z* | X*) return 1 ;; esac
}

# The time is over, or so says whoever sent ALRM: the clock knows.
mycli_on_alarm() {
	mycli_clock
	[ "${mycli_now:-$mycli_deadline}" -lt "$mycli_deadline" ] || mycli_finish timeout
}

# Ends the command for reason $1 (signal or timeout), the first that comes. What comes later is ignored before anything else is done: see
# mycli_time for what a trap within a trap may do.
mycli_finish() {
	trap '' TERM INT HUP QUIT ALRM
	[ -z "$mycli_end" ] || return 0
	mycli_end=$1
	[ "$mycli_end" != timeout ] || mycli_expired
	mycli_stop
}

# Fills mycli_table for mycli_tree where there is no /proc (macOS). The ps itself, our child, is left out.
mycli_ask_ps() {
	mycli_lines=$(exec /usr/bin/env PATH="${PATH-}:/usr/bin:/bin" LC_ALL=C ps -A -o pid= -o stat= -o ppid= -o pgid= -o comm=)
	while IFS=' ' read -r mycli_pid mycli_state mycli_parent mycli_group mycli_line; do
		case $mycli_pid:$mycli_state:$mycli_parent:$mycli_line in
		$$:*) mycli_own=$mycli_group ;;
		*:[ZX]*:*:* | *:$$:ps | *:$$:*/ps) ;;
		*) mycli_table="$mycli_table $mycli_pid:$mycli_parent:$mycli_group" ;; esac
	done <<END
$mycli_lines
END
}

# Lists in mycli_alive who belongs to the command: as pid 1 everyone else; otherwise our process group, where it is ours, and all
# descendants, also of those seen before (their parents may be gone by now). Zombies do not count. A parent comes before its children: a
# script that is told after what it waits for would take that one's end for its own next step.
mycli_tree() {
	mycli_table='' mycli_alive=''
	for mycli_stat in /proc/[0-9]*/stat; do
		read -r mycli_line <"$mycli_stat" || continue
		mycli_pid=${mycli_line%% *}
		# The name in parentheses may hold anything, so fields are counted from the last one: state, parent, group.
		mycli_line=${mycli_line##*) }
		mycli_state=${mycli_line%% *} mycli_line=${mycli_line#* }
		mycli_parent=${mycli_line%% *} mycli_line=${mycli_line#* } mycli_group=${mycli_line%% *}
		case $mycli_pid:$mycli_state in $$:*) mycli_own=$mycli_group ;; *:[ZX]) ;;
		*) mycli_table="$mycli_table $mycli_pid:$mycli_parent:$mycli_group" ;; esac
	done
	[ -r /proc/self/stat ] || mycli_ask_ps
	[ "$$" -ne 1 ] || mycli_own=any
	[ "$mycli_own" = "$$" ] || [ "$mycli_own" = any ] || mycli_own=none
	mycli_kin=" $$ " mycli_by=parent
	while :; do
		mycli_grew='' mycli_left=$mycli_table mycli_table=''
		while [ -n "$mycli_left" ]; do
			mycli_entry=${mycli_left##* } mycli_left=${mycli_left% *}
			mycli_pid=${mycli_entry%%:*} mycli_group=${mycli_entry##*:}
			mycli_parent=${mycli_entry#*:} mycli_parent=${mycli_parent%:*}
			case $mycli_by:$mycli_own in
			parent:*) mycli_list=$mycli_kin mycli_one=$mycli_parent ;;
			*:any | *:"$mycli_group") mycli_list=$mycli_kin mycli_one=$$ ;;
			*) mycli_list=" $mycli_seen" mycli_one=$mycli_pid ;;
			esac
			case $mycli_list in
			*" $mycli_one "*) mycli_grew=1 mycli_kin="$mycli_kin$mycli_pid " mycli_alive="$mycli_alive$mycli_pid " ;;
			*) mycli_table="$mycli_table $mycli_entry" ;;
			esac
		done
		# Only when there are no more descendants, the rest, and then their descendants.
		case $mycli_by:$mycli_grew in
		parent:) mycli_by=rest ;;
		rest:) break ;;
		*) mycli_by=parent ;;
		esac
	done
	mycli_seen=$mycli_alive
}

# Sends signal $1 to the whole tree. As pid 1 the kernel does it in one step, and nobody can fork away from it.
mycli_signal() {
	if [ "$$" -eq 1 ]; then
		kill "-$1" -1
		return
	fi
	mycli_tree
	while [ -n "$mycli_alive" ]; do
		kill "-$1" "${mycli_alive%% *}"
		mycli_alive=${mycli_alive#* }
	done
}

# TERM to the tree, and KILL to what is left of it when the grace is over. Waits for the whole tree, not for the shell alone: a
# shell dies of TERM at once, while what it ran may still be releasing a lock.
mycli_stop() {
	mycli_disarm
	mycli_clock
	mycli_deadline=$((${mycli_now:-0} + mycli_grace)) mycli_left_turns=$((mycli_grace * 10))
	mycli_signal TERM
	while mycli_tree; [ -n "$mycli_alive" ]; do
		mycli_clock
		[ "${mycli_now:-0}" -lt "$mycli_deadline" ] || break
		[ "$mycli_left_turns" -gt 0 ] || break
		mycli_left_turns=$((mycli_left_turns - 1))
		PATH="${PATH-}:/usr/bin:/bin" sleep 0.1 || PATH="${PATH-}:/usr/bin:/bin" sleep 1
	done
	# What forks while it is being killed needs more than one look.
	mycli_left_turns=20
	while mycli_tree; [ -n "$mycli_alive" ] && [ "$mycli_left_turns" -gt 0 ]; do
		mycli_signal KILL
		mycli_left_turns=$((mycli_left_turns - 1))
	done
}

# Waits for the child. A `wait` that a signal cut short says over 128, as does a command that a signal killed.
mycli_await() {
	while
		wait "$mycli_child"
		mycli_code=$?
		[ "$mycli_code" -gt 128 ] && mycli_runs "$mycli_child"
	do :; done
	# It may have ended just after a `wait` was cut short, so ask again. bash as sh forgets a status once told and then says 127.
	[ "$mycli_code" -gt 128 ] || return 0
	wait "$mycli_child"
	mycli_status=$?
	[ "$mycli_status" -eq 127 ] || mycli_code=$mycli_status
}

# Runs mycli_body as a child for at most $1 seconds (empty: for ever). The caller
# clears mycli_end, and may have trapped a signal in it. Leaves mycli_end (exit, timeout or signal) and mycli_code.
# The traps act by themselves, because a flag set just before a `wait` would be looked at only after it.
mycli_run() {
	mycli_timer='' mycli_child='' mycli_seen=''
	trap 'mycli_finish signal' TERM INT HUP QUIT
	mycli_body &
	mycli_child=$!
	# The signal may have come before there was a child to pass it on to.
	[ -z "$mycli_end" ] || { mycli_end='' && mycli_finish signal; }
	[ -z "$1" ] || [ -n "$mycli_end" ] || mycli_arm "$1"
	mycli_await
	mycli_spent=$mycli_timer
	mycli_disarm
	[ -z "$mycli_spent" ] || wait "$mycli_spent"
	: "${mycli_end:=exit}"
}

mycli_expired() {
	mycli_mark timeout
}

mycli_command() {
	mycli_text=$1 mycli_grace=$3 mycli_env=${4-} mycli_end=''
	[ -n "${mycli_nonce-}" ] || read -r mycli_nonce <&3
	trap mycli_end=signal TERM INT HUP QUIT
	exec 3<&- 4>&2 2>/dev/null
	mycli_body() {
		trap - TERM INT HUP QUIT ALRM
		[ -z "$mycli_env" ] || {
			# As with the timer, the locale. Whoever set LC_ALL gets it as it is.
			[ -n "${LC_ALL+set}" ] || { set -- -u LC_ALL && export LC_ALL=C; }
			exec "$mycli_env" "$@" --default-signal=INT,QUIT /bin/sh -c -- "$mycli_text" 2>&4 4>&-
		}
		exec /bin/sh -c -- "$mycli_text" 2>&4 4>&-
	} </dev/null
	# A shell without job control ignores INT and QUIT in what it starts with `&`, and nothing can undo that but bash or GNU env: with
	# neither, as in busybox images, they stay ignored.
	if [ -n "${BASH_VERSION-}" ]; then
		mycli_env=''
	elif [ -n "$mycli_env" ]; then :; elif env --default-signal=INT,QUIT true; then
		mycli_env='env'
	fi
	mycli_mark start
	mycli_run "$2"
	[ "$mycli_end" != timeout ] || mycli_leave 124
	mycli_mark "exit:$mycli_code"
	mycli_leave "$mycli_code"
}

[ -n "${mycli_setting_up-}" ] || mycli_command "$@"
