#!/bin/sh
# Tests whether behaviour detection works on this server.
#
# It does what an intruder does first: it looks for files with secrets, and
# reads them. It makes a folder of decoys with worthless content, searches it
# and a few well-known places with find, grep and cat, throws away all that it
# reads, and removes the decoys. It changes nothing else, sends nothing
# anywhere and needs no privileges.
#
# What must come of it, once for each run: an alert of severity Low,
# "Enumeration of files with sensitive data".
#
#   ./edr_test_linux.sh               with find, grep and cat
#   ./edr_test_linux.sh --python      the reading is done by a Python program
#   ./edr_test_linux.sh --builtins    by the shell itself, no other program
#   ./edr_test_linux.sh --renamed     by a copy of cat under another name
#   ./edr_test_linux.sh --wait N      seconds for the agent to see the decoys (3)

set -u

variant=programs
pause=3
while [ $# -gt 0 ]; do
	case $1 in
	--python) variant=python ;;
	--builtins) variant=builtins ;;
	--renamed) variant=renamed ;;
	--wait)
		if [ $# -lt 2 ]; then
			echo "--wait needs a number of seconds" >&2
			exit 2
		fi
		pause=$2
		shift
		;;
	-h | --help)
		sed -n '2,20p' "$0" | sed 's/^# \{0,1\}//'
		exit 0
		;;
	*)
		echo "unknown option $1; try --help" >&2
		exit 2
		;;
	esac
	shift
done

python=
if [ "$variant" = python ]; then
	for name in python3 python; do
		if command -v "$name" >/dev/null 2>&1; then
			python=$name
			break
		fi
	done
	if [ -z "$python" ]; then
		echo "This variant needs Python, which is not installed here. Run the test without --python." >&2
		exit 7
	fi
fi

# The decoys lie in the home folder if it can be written, because that is a
# place that is watched everywhere, else in the folder for temporary files.
place=${HOME:-/nonexistent}
if [ ! -d "$place" ] || [ ! -w "$place" ]; then
	place=${TMPDIR:-/tmp}
fi
decoys=$(mktemp -d "$place/edr-test.XXXXXX") || exit 1
trap 'rm -rf "$decoys"' EXIT
trap 'exit 1' HUP INT TERM

decoy() { # name, content
	mkdir -p "$decoys/${1%/*}"
	printf '%s\n' "$2" >"$decoys/$1"
}

umask 077
key='PRIVATE KEY-----'
decoy home/.ssh/id_rsa "-----BEGIN $key decoy -----END $key"
decoy home/.aws/credentials '[default] aws_secret_access_key = decoy'
decoy home/.kube/config 'users: [{name: decoy, user: {token: decoy}}]'
decoy home/.bash_history 'echo decoy'
decoy home/.pgpass 'localhost:5432:decoy:decoy:decoy'
decoy home/.git-credentials 'https://decoy:decoy@localhost'
decoy app/.env 'PASSWORD=decoy'
decoy app/server.key "-----BEGIN $key"
decoy etc/shadow 'decoy:*:1:0:99999:7:::'

# What is read: the decoys, and the real ones where they exist and may be read.
# Nothing of them is kept.
home=${HOME:-/nonexistent}
set -- "$decoys/home/.ssh/id_rsa" "$decoys/home/.aws/credentials" "$decoys/home/.kube/config" \
	"$decoys/home/.bash_history" "$decoys/home/.pgpass" "$decoys/home/.git-credentials" \
	"$decoys/app/.env" "$decoys/app/server.key" "$decoys/etc/shadow" \
	"$home/.ssh/id_rsa" "$home/.ssh/id_ed25519" "$home/.aws/credentials" "$home/.kube/config" /etc/shadow

echo "Decoys are in $decoys; waiting $pause s for the agent to notice them."
sleep "$pause"

case $variant in
programs)
	find "$decoys" "$home/.ssh" -maxdepth 3 \( -name 'id_*' -o -name '*.key' -o -name credentials -o -name .env \) >/dev/null 2>&1
	cat "$decoys/home/.ssh/id_rsa" >/dev/null
	cat "$decoys/home/.aws/credentials" >/dev/null
	grep -r -i -e password -e secret -e token -e 'BEGIN .*PRIVATE' "$decoys" >/dev/null 2>&1
	for file; do
		cat "$file" >/dev/null 2>&1
	done
	;;
renamed)
	cp "$(command -v cat)" "$decoys/notes"
	chmod 700 "$decoys/notes"
	for file; do
		"$decoys/notes" "$file" >/dev/null 2>&1
	done
	;;
builtins)
	for file; do
		[ -f "$file" ] && [ -r "$file" ] || continue
		while read -r line; do
			: "$line"
		done <"$file"
	done
	;;
python)
	cat >"$decoys/reader.py" <<'PYTHON'
import sys

for name in sys.argv[1:]:
    try:
        with open(name, "rb") as file:
            file.read()
    except OSError:
        pass
PYTHON
	"$python" "$decoys/reader.py" "$@"
	;;
esac

echo 'Done. Expect one alert within seconds: severity Low, "Enumeration of files with sensitive data".'
echo 'Its process tree shows this script and what it started. To see a second alert, run the test again.'
