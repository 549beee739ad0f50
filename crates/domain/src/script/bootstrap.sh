# shellcheck shell=sh
# shellcheck disable=SC2034 # both stages share names, and some fields are read to be passed over
# Stage 1: takes our variables out of the environment, clones the repository if there is one, and makes way for stage 2.
#
# A line before this text assigns stage 2 to mycli_stage2 and the well-known host keys to mycli_pins. A process's initial
# environment stays readable in /proc for as long as it lives, so this one, which was given the secrets, must end in an exec.
# Without a repository only builtins run here.
#
# Arguments, both empty unless whoever runs this knows better: the path of an `env` with --default-signal; anything, if the initial
# environment holds neither nonce nor credential, so that stage 2 needs no shell of its own.
# shellcheck disable=SC2154 # mycli_stage2 and mycli_pins

# Were one of these exported by the image, then our value would be too.
unset mycli_nonce mycli_token mycli_key mycli_text mycli_setting_up
mycli_env=${1-} mycli_open=${2-}
mycli_nonce=${MYCLI_NONCE-} mycli_text=${MYCLI_COMMAND-} mycli_timeout=${MYCLI_TIMEOUT-} mycli_grace=${MYCLI_GRACE:-10}
mycli_repo=${MYCLI_REPO-} mycli_ref=${MYCLI_REF-} mycli_limit=${MYCLI_SETUP_TIMEOUT:-600} mycli_base=${MYCLI_WORKDIR-}
mycli_token=${MYCLI_GIT_TOKEN-} mycli_user=${MYCLI_GIT_USERNAME:-x-access-token}
mycli_key=${MYCLI_SSH_KEY-} mycli_hosts=${MYCLI_KNOWN_HOSTS:-$mycli_pins}
mycli_without=${MYCLI_WITHOUT-} mycli_held=${MYCLI_HELD-}
unset MYCLI_NONCE MYCLI_COMMAND MYCLI_WORDS MYCLI_TIMEOUT MYCLI_GRACE MYCLI_REPO MYCLI_REF MYCLI_SETUP_TIMEOUT MYCLI_WORKDIR \
	MYCLI_GIT_TOKEN MYCLI_GIT_USERNAME MYCLI_SSH_KEY MYCLI_KNOWN_HOSTS MYCLI_COMMIT MYCLI_WITHOUT MYCLI_HELD

# Set-up failed for reason $1, one line.
mycli_fail() {
	printf 'mycli: %s\n' "$1" >&4
	mycli_mark "fail:$1"
	mycli_leave 125
}

# What a set-up step leaves for the parent: the reason of its failure, on one line.
mycli_refuse() {
	printf '%s\n' "$1" >"$mycli_setup/why"
	exit 125
}

# A directory of our own beneath the first base that can be written to: mycli_work, with the set-up's private files in mycli_setup.
mycli_make_room() {
	for mycli_dir in "${mycli_base:-${TMPDIR:-/tmp}}" "${mycli_base:-/tmp}" "${mycli_base:-/var/tmp}" "${mycli_base:-${HOME:-/}}" "${mycli_base:-$PWD}"; do
		mycli_try=0
		while [ "$mycli_try" -lt 9 ] && [ -d "$mycli_dir" ] && [ -w "$mycli_dir" ]; do
			mycli_work=${mycli_dir%/}/mycli-$$.$mycli_try mycli_try=$((mycli_try + 1))
			mkdir "$mycli_work" || continue
			mycli_setup=$mycli_work/.setup
			mkdir -m 700 "$mycli_setup" && return
		done
	done
	mycli_fail "cannot clone: no writable directory${mycli_base:+ at $mycli_base}; give the image a writable /tmp, or use --no-repo"
}

# Runs $@, keeping what it says for the case that it fails in the end.
mycli_quietly() {
	"$@" >"$mycli_setup/said" 2>&1
}

# The last lines of what was said, on one line.
mycli_said() {
	mycli_all=''
	while IFS= read -r mycli_line || [ -n "$mycli_line" ]; do
		case $mycli_line in
		'' | hint:* | Cloning* | 'and the repository exists.' | 'Please make sure'* | @@@*) ;;
		*) mycli_all="$mycli_all${mycli_all:+; }${mycli_line%"${mycli_line##*[![:space:]]}"}" ;;
		esac
	done <"$mycli_setup/said"
}

# What a failure says, in LC_ALL=C, by whose words it is: git's (http.c, remote-curl.c, connect.c, pkt-line.c, sideband.c, index-pack.c), curl's
# (strerror.c, hostip.c, connect.c, transfer.c, http2.c, vtls/*.c), which git repeats, or ssh's (ssh.c, sshconnect.c, packet.c, kex.c).
# Refused or not there: to ask again, or for something else, is no use.
mycli_is_final() {
	case $mycli_all in
	*'Authentication failed'* | *'could not read Username'* | *'could not read Password'* | *'returned error: 40'[134]* | *'returned error: 407'* | *'returned error: 410'* | *"repository '"*"' not found"* | *'ertificate '*) ;;
	*'Permission denied'* | *'Host key verification failed'* | *'Repository not found'* | *'does not appear to be a git repository'*) ;;
	*) return 1 ;;
	esac
}

# Names, connections, a server in trouble: what may pass by itself. An answer that the server meant to give does not, whatever it says of
# a connection that git itself then ends.
mycli_may_pass() {
	case $mycli_all in
	*'remote error: '* | *'unadvertised object'* | *'not found in upstream'* | *'find remote ref'* | *'does not support'* | *'returned error: 4'[!2]*) return 1 ;;
	*'returned error: '[45]* | *'RPC failed'* | *'Could not resolve '* | *'Failed to connect to'* | *'onnection timed out'* | *'onnection timeout'* | *'esolving timed out'* | *'peration timed out'* | *'peration too slow'*) ;;
	*'onnection reset by'* | *'onnection closed by'* | *'onnection refused'* | *'Broken pipe'* | *'Empty reply from server'* | *'transfer closed with'* | *'was not closed cleanly'* | *'HTTP2 framing layer'*) ;;
	*'SSL_ERROR_SYSCALL'* | *'unexpected eof'* | *'non-properly terminated'* | *'pull function'* | *'early EOF'* | *'hung up unexpectedly'* | *'unexpected disconnect'*) ;;
	*'unable to look up'* | *'unable to connect to'* | *'ssh: connect to host'* | *'exchange_identification'* | *'not responding'*) ;;
	*) return 1 ;;
	esac
}

# Runs $@, which asks the server. Failures that may pass are tried three times over the whole set-up; a final one ends it.
mycli_ask() {
	until mycli_quietly "$@"; do
		mycli_said
		if mycli_is_final; then
			mycli_refuse "cannot clone $mycli_repo: $mycli_all"
		elif mycli_may_pass; then
			[ -n "$mycli_pauses" ] || mycli_refuse "cannot clone $mycli_repo: $mycli_all"
			printf 'mycli: cannot reach %s: %s; trying again in %s s\n' "$mycli_repo" "$mycli_all" "${mycli_pauses%% *}" >&4
			sleep "${mycli_pauses%% *}"
			mycli_pauses=${mycli_pauses#* }
		else
			return 1
		fi
	done
}

mycli_install() {
	mycli_how="use an image that has git, or --no-repo"
	[ "$(id -u)" -eq 0 ] || mycli_refuse "$mycli_want is not in this image and cannot be installed without root: $mycli_how"
	for mycli_tool in apt-get apk dnf microdnf yum none; do
		command -v "$mycli_tool" >/dev/null && break
	done
	[ "$mycli_tool" != none ] || mycli_refuse "$mycli_want is not in this image, nor is a package manager that we know (apt-get, apk, dnf, microdnf, yum): $mycli_how"
	mycli_ssh_package=openssh-clients
	case $mycli_tool in ap*) mycli_ssh_package=openssh-client ;; esac
	set --
	command -v git >/dev/null || set -- git ca-certificates
	[ -z "$mycli_ssh" ] || command -v ssh >/dev/null || set -- "$@" "$mycli_ssh_package"
	printf 'mycli: installing %s with %s; an image that has it starts sooner\n' "$mycli_want" "$mycli_tool" >&4
	case $mycli_tool in
	apt-get)
		DEBIAN_FRONTEND=noninteractive
		export DEBIAN_FRONTEND
		apt-get -qq update && apt-get -qq -y --no-install-recommends install "$@" ;;
	apk) apk add --no-cache --quiet "$@" ;;
	*) "$mycli_tool" install -y "$@" ;;
	esac >&4 2>&4 || mycli_refuse "$mycli_tool could not install $mycli_want (its messages are in the log): $mycli_how"
}

# The user's git settings are for the user's command: only what says how to reach a server is kept.
mycli_forget_git_settings() {
	mycli_names=$(export -p | while IFS='= ' read -r mycli_word mycli_flag mycli_var mycli_rest; do
		case $mycli_flag in -*) ;; *) mycli_var=$mycli_flag ;; esac
		case $mycli_var in
		GIT_SSL_* | GIT_PROXY_SSL_*) ;;
		GIT_*[!A-Za-z0-9_]*) ;;
		GIT_*) printf '%s ' "$mycli_var" ;;
		esac
	done)
	while [ -n "$mycli_names" ]; do
		unset "${mycli_names%% *}"
		mycli_names=${mycli_names#* }
	done
	unset CDPATH ENV BASH_ENV XDG_CONFIG_HOME SSH_ASKPASS
	export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS='' GIT_NO_LAZY_FETCH=1 LC_ALL=C
}

# Credentials reach git by the environment of the set-up alone; argv and .git/config only ever see the variables' names.
mycli_git() {
	git -c credential.helper= -c "credential.$mycli_origin.helper=$mycli_helper" -c advice.detachedHead=false \
		-c init.defaultBranch=main -c gc.auto=0 -c maintenance.auto=false -c core.hooksPath=/dev/null "$@"
}

mycli_give_credentials() {
	mycli_origin=https://invalid.invalid mycli_helper=''
	case $mycli_repo in
	http://* | https://*)
		[ -z "$mycli_token" ] || {
			# The token is for this server alone, wherever it may redirect us.
			mycli_host=${mycli_repo#*://} mycli_host=${mycli_host%%/*}
			mycli_origin=${mycli_repo%%://*}://${mycli_host##*@}
			export MYCLI_GIT_USERNAME="$mycli_user" MYCLI_GIT_TOKEN="$mycli_token"
			# shellcheck disable=SC2016 # expanded by the shell that git runs
			mycli_helper='!mycli() { [ "$1" != get ] || printf "username=%s\npassword=%s\n" "$MYCLI_GIT_USERNAME" "$MYCLI_GIT_TOKEN"; }; mycli'
		} ;;
	esac
	if [ -n "$mycli_ssh" ]; then
		export MYCLI_SETUP="$mycli_setup"
		(umask 077 && printf '%s\n' "$mycli_hosts" >"$mycli_setup/hosts" && printf '%s\n' "$mycli_key" >"$mycli_setup/key")
		# git hands this to a shell, which is where the variable is expanded: a path may hold anything.
		# shellcheck disable=SC2016,SC2089,SC2090
		{
			GIT_SSH_COMMAND='ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30 -o LogLevel=ERROR -o ControlPath=none -o UserKnownHostsFile="\"$MYCLI_SETUP/hosts\"" -o GlobalKnownHostsFile=/dev/null'
			[ -z "$mycli_key" ] || GIT_SSH_COMMAND="$GIT_SSH_COMMAND"' -o IdentitiesOnly=yes -i "$MYCLI_SETUP/key"'
			export GIT_SSH_COMMAND GIT_SSH_VARIANT=ssh
		}
	elif [ -n "$mycli_local" ]; then
		# The repository may be another user's. The process that serves it hears only of the global configuration.
		printf '[safe]\n\tdirectory = *\n' >"$mycli_setup/.gitconfig"
		export HOME="$mycli_setup"
	fi
}

mycli_clone() {
	mycli_ask mycli_git clone --quiet --no-local "$@" ${mycli_ref:+"--branch=$mycli_ref"} -- "$mycli_repo" "$mycli_checkout"
}

# An empty repository that knows its origin, to fetch a commit into.
mycli_empty() {
	mycli_quietly git -c init.defaultBranch=main init --quiet "$1" && mycli_quietly git -C "$1" remote add origin "$mycli_repo"
}

mycli_everything() {
	mycli_ask mycli_git -C "$@" origin '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'
}

# Checks out what $1 (a full id, or a name beginning with refs/) is at the origin. Servers that refuse to be asked for a bare id, or
# cannot do shallow clones, are asked for everything.
mycli_exact() {
	mycli_empty "$mycli_checkout" || return
	if mycli_ask mycli_git -C "$mycli_checkout" fetch --quiet --depth=1 origin "$1"; then
		mycli_quietly mycli_git -C "$mycli_checkout" checkout --quiet --detach FETCH_HEAD && return
	elif mycli_everything "$mycli_checkout" fetch --quiet; then
		mycli_quietly mycli_git -C "$mycli_checkout" checkout --quiet --detach "$1" -- && return
	fi
	rm -rf "$mycli_checkout"
	return 1
}

# Finds the full id of the abbreviated $1 in a history without files, and checks that out. A server of plain files, which cannot leave files
# out, must not be asked to: git would look there for each that is missing, by a git that looks for it in turn, and so on. It has no depths
# either, and git says so before it asks for anything; to others this depth means all (as with --unshallow).
mycli_abbreviated() {
	mycli_scan=$mycli_setup/scan
	mycli_empty "$mycli_scan" || return
	mycli_everything "$mycli_scan" fetch --quiet --filter=blob:none --depth=2147483647 || {
		rm -rf "$mycli_scan"
		mycli_empty "$mycli_scan" && mycli_everything "$mycli_scan" fetch --quiet || return
	}
	mycli_full=$(git -C "$mycli_scan" rev-parse --quiet --verify "$1^{commit}" 2>"$mycli_setup/said") || return
	mycli_exact "$mycli_full"
}

mycli_list() {
	mycli_git ls-remote --quiet -- "$mycli_repo" ${mycli_ref:+"refs/heads/$mycli_ref" "refs/tags/$mycli_ref"} >"$mycli_setup/tips"
}

# Branch, then tag, then commit. But a full id goes first: nobody may pin a commit and be given a branch of that name.
mycli_check_out() {
	mycli_hex=''
	case $mycli_ref in
	'' | refs/*) ;;
	*[!0-9a-fA-F]* | ? | ?? | ???) ;;
	*) mycli_hex=${#mycli_ref} ;;
	esac
	case $mycli_hex:$mycli_ref in
	40:* | 64:* | :refs/*) mycli_exact "$mycli_ref" && return ;;
	esac
	mycli_clone --depth=1 && return
	# Looked into only now, so that the usual clone costs one connection.
	mycli_ask mycli_list || return
	if [ -s "$mycli_setup/tips" ]; then
		mycli_clone
		return
	fi
	case $mycli_hex in '' | 40 | 64) ;; *) mycli_abbreviated "$mycli_ref" && return ;; esac
	mycli_refuse "no branch, tag or commit ${mycli_ref:-HEAD} in $mycli_repo"
}

# The set-up itself, a child of this shell.
mycli_body() {
	trap - TERM INT HUP QUIT ALRM
	PATH="${PATH-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	export PATH
	mycli_forget_git_settings
	mycli_want='' mycli_pauses='2 6 '
	command -v git >/dev/null || mycli_want=git
	[ -z "$mycli_ssh" ] || command -v ssh >/dev/null || mycli_want="${mycli_want:+$mycli_want and }an ssh client"
	[ -z "$mycli_want" ] || mycli_install
	mycli_give_credentials
	mycli_check_out || {
		mycli_said
		mycli_refuse "cannot clone $mycli_repo: ${mycli_all:-git failed}"
	}
	git -C "$mycli_checkout" rev-parse --verify 'HEAD^{commit}' >"$mycli_setup/commit" ||
		mycli_refuse "there is no commit at ${mycli_ref:-HEAD, the default branch,} of $mycli_repo: name a branch or a commit that is there"
	exit 0
} </dev/null

# What kind of address the repository has decides what is needed to reach it.
mycli_classify() {
	mycli_ssh='' mycli_local=''
	case $mycli_repo in
	ssh://* | git+ssh://*) mycli_ssh=1 ;;
	file://* | /*) mycli_local=1 ;;
	*://*) ;;
	./* | ../*) mycli_local=1 mycli_repo=$PWD/$mycli_repo ;;
	*:*) mycli_ssh=1 ;;
	*) mycli_local=1 mycli_repo=$PWD/$mycli_repo ;;
	esac
	mycli_name=${mycli_repo%/} mycli_name=${mycli_name%/.git} mycli_name=${mycli_name##*[/:]} mycli_name=${mycli_name%.git}
	case $mycli_name in '' | [.-]* | *[!A-Za-z0-9._-]*) mycli_name=repository ;; esac
}

# Runs mycli_body under the same watch as a command, and takes over what it found out.
mycli_set_up() {
	mycli_setting_up=1
	eval "$mycli_stage2"
	exec 4>&2 2>/dev/null
	mycli_end=''
	trap mycli_end=signal TERM INT HUP QUIT
	mycli_expired() { :; }
	mycli_mark setup
	[ -z "$mycli_without" ] || printf 'mycli: %s\n' "$mycli_without" >&4
	mycli_classify
	mycli_make_room
	mycli_checkout=$mycli_work/$mycli_name mycli_why='' mycli_commit=''
	mycli_run "$mycli_limit"
	if [ "$mycli_code" -eq 0 ] && [ "$mycli_end" = exit ]; then
		read -r mycli_commit <"$mycli_setup/commit" && rm -rf "$mycli_setup" && cd "$mycli_checkout" || mycli_why="cannot enter the clone"
	else
		read -r mycli_why <"$mycli_setup/why" || mycli_why="set-up ended with status $mycli_code"
	fi
	case $mycli_end in
	timeout) mycli_why="cloning $mycli_repo took longer than $mycli_limit s" ;;
	signal) mycli_why="stopped while cloning $mycli_repo" ;;
	esac
	[ -z "$mycli_why" ] || {
		rm -rf "$mycli_work"
		mycli_fail "$mycli_why"
	}
	mycli_mark "commit:$mycli_commit"
	export MYCLI_COMMIT="$mycli_commit"
	exec 2>&4 4>&-
}

# Gives the command those of its variables that could turn the set-up against its credentials: a proxy, a library to load, a PATH.
mycli_release() {
	while [ -n "$mycli_held" ]; do
		mycli_name=${mycli_held%% *}
		eval "export $mycli_name=\"\$MYCLI_ENV_$mycli_name\"; unset MYCLI_ENV_$mycli_name"
		mycli_held=${mycli_held#"$mycli_name"} mycli_held=${mycli_held# }
	done
}

[ -z "$mycli_repo" ] || mycli_set_up
mycli_release
set -- "$mycli_text" "$mycli_timeout" "$mycli_grace" "$mycli_env"
[ -z "$mycli_open" ] || eval "$mycli_stage2"
exec /bin/sh -c "$mycli_stage2" mycli "$@" 3<<END
$mycli_nonce
END
