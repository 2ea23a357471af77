#!/bin/sh
# testflinger-agent @VERSION@ for @TARGET@: this launcher, and behind it a compressed archive of the
# runtime (Deno @DENO@) and of the program. The first start unpacks them into a cache folder.
id=@ID@
arch=@ARCH@
skip=@SKIP@
# In the order in which ls lists them.
files='@FILES@'
sizes=' @SIZES@'
sums='@SUMS@'

# A request to restart must not kill what is just starting. The program listens for the signal
# before it does anything else; from then on it is ignored neither there nor in its children.
trap '' USR1

# A program that runs the runtime where the machine cannot, such as an emulator.
runner=${TESTFLINGER_AGENT_RUNNER-}
newline='
'

case $0 in
  /*) self=$0 ;;
  */*) self=$PWD/${0#./} ;;
  *) if [ -f "$0" ]; then self=$PWD/$0; else self=$(command -v -- "$0"); fi ;;
esac

fail() {
  printf 'testflinger-agent: %s\n' "$1" >&2
  exit 1
}

# The runtime would end with a trace. (A folder that this account may not look into is none that is gone.)
if [ ! -d "$PWD" ]; then
  case $(readlink /proc/self/cwd) in
    *' (deleted)') fail "the folder that it was started in is gone: change to another one" ;;
  esac
fi

# May only root and this account put something into these files' and folders' place? Sets $found to
# the sizes of the files. (No 'read': it takes a system call for each character.)
trusted() { # what `ls -ldn /proc/self/ ...` prints: nine words a line; 'ls' is of this account
  found='' owners='' me=''
  # The folder above, the cache folder, and in it that of this version: else something is missing.
  [ $# -ge 27 ] || return 1
  while [ $# -ge 9 ]; do
    case $1 in
      [d-]????-??-?*) ;;       # nobody else may write
      d????????[tT]*) ;;       # others may write, but not touch what is not theirs
      *) return 1 ;;
    esac
    case $1 in -*) found="$found $5" ;; esac
    case $9 in /proc/self/) me=$3 ;; *) owners="$owners $3" ;; esac
    shift 9
  done
  [ -n "$me" ] || me=$(id -u)
  for owner in $owners; do
    [ "$owner" = "$me" ] || [ "$owner" = 0 ] || return 1
  done
}

# Does the cache folder $1 hold the whole program, safe from other accounts? The sizes are looked
# at because a power cut may have cut the files.
ready() {
  # shellcheck disable=SC2046,SC2086 # words are wanted
  trusted $(cd -- "$1" 2>/dev/null && LC_ALL=C ls -ldn .. . /proc/self/ "$id" $files 2>/dev/null) &&
    [ "$found" = "$sizes" ]
}

# Unpacks into the cache folder $1; what went wrong is in $problem. Each file is moved into place
# when it is whole, so several starts at once, or one that is killed, do no harm.
unpack() {
  problem=
  old_umask=$(umask)
  umask 022
  fill "$1"
  filled=$?
  umask "$old_umask"
  [ -z "$tmp" ] || rm -rf -- "$tmp"
  tmp=
  trap - INT TERM HUP
  return "$filled"
}

fill() {
  if ! err=$(mkdir -p -- "$1/$id" 2>&1); then
    problem=${err##*"$newline"}
    return 1
  fi
  # shellcheck disable=SC2046 # words are wanted
  if ! trusted $(cd -- "$1" && LC_ALL=C ls -ldn .. . /proc/self/ "$id" 2>/dev/null); then
    problem="other accounts can write there"
    return 1
  fi
  # What a start left that was killed. An hour, for it may run in a container: out of sight.
  find "$1/$id" -maxdepth 1 -name 'unpacking.*' -mmin +60 -exec rm -rf -- {} + 2>/dev/null
  trap 'rm -rf -- "$tmp"; exit 143' INT TERM HUP
  if ! err=$(mktemp -d "$1/$id/unpacking.XXXXXX" 2>&1); then
    problem=${err##*"$newline"}
    return 1
  fi
  tmp=$err
  err=$({ tail -c "+$skip" -- "$self" | gzip -dc | tar -xof - -C "$tmp"; } 2>&1)
  if ! (cd -- "$tmp" && printf '%s\n' "$sums" | sha256sum -c) >/dev/null 2>&1; then
    problem="the checksum of what was unpacked is wrong${err:+: ${err##*"$newline"}}"
    return 1
  fi
  # shellcheck disable=SC2086 # a command and its arguments
  if ! err=$($runner "$tmp/testflinger-agent" --version 2>&1); then
    problem="the runtime cannot be run from there (no glibc 2.27 or later, or mounted noexec)"
    problem="$problem${err:+: ${err##*"$newline"}}"
    return 1
  fi
  # On the disk before it is in place: else a power cut could leave the name of an empty file.
  set +f
  if ! err=$(cd -- "$tmp" && { sync ./* 2>/dev/null || sync; } && mv -f -- ./* .. 2>&1); then
    problem=${err##*"$newline"}
    return 1
  fi
  ready "$1" || problem="it does not look as it was unpacked"
  [ -z "$problem" ]
}

# Removes the other versions in the cache folder $1 that no process runs. Ten minutes, so as not to
# take away what another start has just unpacked.
prune() {
  [ -w "$1" ] || return
  real=$(cd -P -- "$1" && pwd -P) || return
  running=$(ls -l /proc/[0-9]*/exe 2>/dev/null)
  for old in "$real"/[0-9]*-"$arch"-*; do
    if [ "$old" = "$real/$id" ] || [ -L "$old" ] || [ ! -d "$old" ]; then continue; fi
    case $running in *" $old/testflinger-agent"*) continue ;; esac
    [ -z "$(find "$old" -maxdepth 0 -mmin +10 2>/dev/null)" ] || rm -rf -- "$old"
  done
}

# A candidate a line, the best first.
caches=/var/cache/testflinger-agent
case ${TESTFLINGER_AGENT_CACHE-} in /*) caches=$TESTFLINGER_AGENT_CACHE$newline$caches ;; esac
case ${XDG_CACHE_HOME-} in /*) caches=$caches$newline$XDG_CACHE_HOME/testflinger-agent ;; esac
case ${HOME-} in /*) caches=$caches$newline$HOME/.cache/testflinger-agent ;; esac
caches=$caches$newline${self%/*}/.testflinger-agent-cache

cache=
set -f
IFS=$newline
for candidate in $caches; do
  unset IFS
  if ready "$candidate"; then
    cache=$candidate
    break
  fi
done

if [ -z "$cache" ]; then
  machine=$(uname -m)
  [ "$machine" = "$arch" ] || [ -n "$runner" ] ||
    fail "this file is for $arch, and this machine is $machine: take the file for $machine"
  tmp=
  problems=
  IFS=$newline
  for candidate in $caches; do
    unset IFS
    if unpack "$candidate"; then
      cache=$candidate
      break
    fi
    problems="$problems$newline  $candidate: $problem"
  done
  if [ -z "$cache" ]; then
    # Replaced by another version while it was being read: that one it shall be.
    head -c 2000 -- "$self" | grep -q "^id=$id\$" || exec "$self" "$@"
    fail "cannot unpack $self, tried these folders:$problems"
  fi
fi
set +f

# More than one version?
for other in "$cache"/[0-9]*-"$arch"-*; do
  if [ "$other" != "$cache/$id" ]; then
    # Nobody has to wait for it: on a host with many processes it takes longer than the start.
    (prune "$cache" </dev/null >/dev/null 2>&1 &)
    break
  fi
done

# For the runtime only: the program takes these out of the environment again. The cache of compiled
# code halves the time of a start.
export TESTFLINGER_AGENT_PROGRAM="$self"
export TESTFLINGER_AGENT_UNSET=
if [ -n "${DENO_DIR+set}" ]; then
  export TESTFLINGER_AGENT_DENO_DIR="$DENO_DIR"
else
  TESTFLINGER_AGENT_UNSET="DENO_DIR"
fi
if [ -z "${DENO_NO_UPDATE_CHECK+set}" ]; then
  TESTFLINGER_AGENT_UNSET="$TESTFLINGER_AGENT_UNSET DENO_NO_UPDATE_CHECK"
  export DENO_NO_UPDATE_CHECK=1
fi
export DENO_DIR="$cache/$id/compiled"

# shellcheck disable=SC2086 # a command and its arguments
exec $runner "$cache/$id/testflinger-agent" run @FLAGS@ "$cache/$id/@MAIN@" "$@"
