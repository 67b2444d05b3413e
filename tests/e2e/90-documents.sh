#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# The commands that README.md, the man pages, docs/qemu.md and docs/benchmarking.md show are run as they
# stand there, from an installed tree, on the hosts 10.1.0.1 (the first) and 10.1.0.2 (the second). Not
# literal: what measures is given little time and memory, what ends in "..." is ended, and /path/to/ is
# left out. ssh is the real one where there is an sshd, else something that forwards a socket.
# shellcheck disable=SC2034
. "$(dirname "$0")/lib.sh"

hosts_up
cd "$TOP" || exit 1
make -s BUILD="$BUILD" DESTDIR="$DIR/inst" PREFIX=/usr/local install >"$LOGS/install.log" 2>&1 ||
	fail "make install: $(tail -n 5 "$LOGS/install.log")"
BIN=$DIR/inst/usr/local
export PATH="$DIR/bin:$BIN/bin:$BIN/sbin:$PATH"
mkdir "$DIR/bin" "$DIR/ssh" "$DIR/work"
ln -s "$TOP/docs" "$DIR/work/docs"
on a ip addr add 10.1.0.1/24 dev mig0
on a ip addr add 10.1.0.7/24 dev mig0
on b ip addr add 10.1.0.2/24 dev mig0

# --- ssh -----------------------------------------------------------------------------------------

SSHD=$(command -v sshd || ls /usr/sbin/sshd 2>/dev/null)
if [ -n "$SSHD" ]; then
	ssh-keygen -q -t ed25519 -N '' -f "$DIR/ssh/host"
	ssh-keygen -q -t ed25519 -N '' -f "$DIR/ssh/key"
	on b mkdir -p /run/sshd
	on b "$SSHD" -f /dev/null -h "$DIR/ssh/host" -o "AuthorizedKeysFile=$DIR/ssh/key.pub" \
		-o PermitRootLogin=yes -o StrictModes=no -o UsePAM=no -o PidFile=none -E "$LOGS/sshd.log"
	printf '#!/bin/sh\nexec /usr/bin/ssh -F /dev/null -o StrictHostKeyChecking=no -o %s -i %s "$@"\n' \
		"UserKnownHostsFile=/dev/null" "$DIR/ssh/key" >"$DIR/bin/ssh"
else
	note "no sshd here: ssh -L is played by socat"
	cat >"$DIR/bin/ssh" <<-EOF
		#!/bin/bash
		[[ "\$*" =~ ^-f\ -N\ -L\ ([^ :]+):/run/tranship/([^ :]+)\ root@10\.1\.0\.2\$ ]] || exit 255
		socat "UNIX-LISTEN:\${BASH_REMATCH[1]},fork" "UNIX-CONNECT:$DIR/b/run/\${BASH_REMATCH[2]}" &
		until [ -S "\${BASH_REMATCH[1]}" ]; do sleep 0.02; done
	EOF
fi
chmod 755 "$DIR/bin/ssh"

# --- what is shown -------------------------------------------------------------------------------

# Blocks of a document, each ended by a form feed: indented by four, after a heading if one is given;
# fenced; or literal in a man page's examples.
indented() {
	awk -v from="$2" 'from != "" && /^## / { on = $0 == from; next }
		(from == "" || on) && /^    / { print substr($0, 5); open = 1; next }
		open { printf "\f"; open = 0 }' "$1"
}
fenced() { awk '/^```/ { on = !on; if (!on) printf "\f"; next } on' "$1"; }
examples() {
	awk '/^\.Sh / { here = $2 == "EXAMPLES" } /^\.Ed/ { if (on) printf "\f"; on = 0 }
		on { gsub(/\\e/, "\\"); print } here && /^\.Bd -literal/ { on = 1 }' "$1"
}

# The VM web1 runs on a, and what the block wants to be waiting waits.
prepare() {
	local block=$1 host=b name

	if ! vm_runs a web1; then
		[ -z "$(vm_pid b web1)" ] || vm_end b web1
		vm_start a web1 ram=128 rate=20
	fi
	[[ $block =~ --incoming\ qemu:/run/vm/([a-z0-9]+)\.qmp ]] || return 0
	name=${BASH_REMATCH[1]}
	[[ $block != */run/b.sock* ]] || host=a
	vm_start $host "$name" ram=128 incoming=1
}

# One command of a block as a line of the script that a runs; those of the second host are run here.
command_line() {
	local line=$1 socket=/run/tranship/transhipd.sock

	[[ ! $line =~ --socket\ ([^ ]+) ]] || socket=${BASH_REMATCH[1]}
	[[ $line == *--time* ]] || line=${line/#tranship bench/tranship bench --time 300ms}
	[[ $line == *--memory* ]] || line=${line/#tranship bench/tranship bench --memory 32MiB}
	line=${line/--omit 1s/--omit 100ms}
	case $line in
	*--seconds* | *--model*) ;;
	*) line=$(sed -E 's/^tranship (dirty-rate|predict)/& --seconds 1/' <<<"$line") ;;
	esac
	case $line in
	*"# on the second")
		on b bash -c "$line" >>"$LOGS/second.log" 2>&1
		eventually 10 on b tranship --socket "$socket" list || fail "not running: $line"
		;;
	*"&" | *"& "*"#"*) printf '%s\nanswers %s\n' "$line" "$socket" ;;
	*) printf '%s\n' "$line" ;;
	esac
}

# run_block NAME BLOCK
run_block() {
	local name=$1 block=$2 line command='' script=$LOGS/script

	prepare "$block"
	{
		echo 'set -e -o pipefail -x'
		echo "cd $DIR/work"
		# shellcheck disable=SC2016
		echo 'answers() { until tranship --socket "$1" list >/dev/null 2>&1; do sleep 0.05; done; }'
		while IFS= read -r line; do
			command+=$line
			case $line in
			*\\) command=${command%\\} ;;
			*"|") command+=' ' ;;
			*) command_line "$command" && command= ;;
			esac
		done <<<"$block"
	} >"$script"
	note "$name: $(sed '1,3d' "$script" | grep -v '^answers ' | tr '\n' ';')"
	timeout 60 "$HOSTS" run "$DIR" a bash "$script" >"$LOGS/block.log" 2>&1 ||
		fail "$name: $(cat "$LOGS/block.log")"
	RUN=$((RUN + 1))
}

# each NAME COMMAND... runs the blocks that a command prints, those that are commands.
each() {
	local name=$1 block
	shift
	RUN=0
	while IFS= read -r -d $'\f' block <&7; do
		# a line with a placeholder is for the reader
		block=$(grep -v /path/to/ <<<"${block%$'\n'}")
		case $block in
		"# /"*.conf*) run_config "$block" ;;
		qemu-system-x86_64*) run_qemu "$block" ;;
		tranship* | "id="* | ssh*) run_block "$name" "$block" ;;
		esac
	done 7< <("$@")
	[ "$RUN" -gt 0 ] || fail "$name shows no command"
	note "$name: $RUN blocks"
}

run_config() {
	note "a configuration"
	mkdir -p "$DIR/c"
	echo "$1" >"$DIR/c/transhipd.conf"
	on a transhipd --config "$DIR/c/transhipd.conf" --socket /run/c.sock --state-dir "$DIR/c" \
		>"$LOGS/config.log" 2>&1 &
	disown
	eventually 10 on a tranship --socket /run/c.sock list || fail "transhipd takes no such configuration"
	RUN=$((RUN + 1))
}

# Stopped at once, so that it needs no memory; it can be moved, and so it may wait for nothing.
run_qemu() {
	local command=${1//$'\n'/ }

	note "a VM"
	command=${command//\\/}
	on a mkdir -p /run/vms
	on a sh -c "${command%...*} -nodefaults -display none -S" >>"$LOGS/qemu-a-web.log" 2>&1 &
	disown
	shown() { on a tranship list | grep -E '^web +[0-9]+ .* yes$'; }
	eventually 10 shown || fail "$(on a tranship list)"
	kill -KILL "$(vm_pid a web)"
	on a rm -f /dev/shm/web.ram
	RUN=$((RUN + 1))
}

each README.md indented README.md '## Moving a VM'
[ "$RUN" = 4 ] || fail "README.md: $RUN blocks, not 4"
each "tranship(1)" examples docs/tranship.1
each docs/qemu.md fenced docs/qemu.md
each docs/benchmarking.md indented docs/benchmarking.md ''
each "transhipd(8)" examples docs/transhipd.8
eventually 5 vm_runs a web2 || fail "the last move went nowhere"

note "make targets"
while IFS= read -r command; do
	eval "make -n BUILD=$BUILD ${command%%#*}" >"$LOGS/make.log" 2>&1 </dev/null ||
		fail "make $command: $(tail -n 3 "$LOGS/make.log")"
done < <(sed -n 's/^    make //p' README.md docs/benchmarks.md)
