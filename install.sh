#!/bin/sh
# Installs testflinger-agent on this host, or into an image with --root. Runs again without harm:
# for an upgrade, a roll-back, or another agent. Running agents are reloaded: the new version takes their
# jobs up where they are.
set -eu
# Files must be readable for the agent's user, whatever the umask of the user who installs.
umask 022

usage() {
  cat <<'EOF'
Usage: sh install.sh [options]

  --from PLACE      the program: a file, or a folder or URL that holds it with its SHA256SUMS
                    (default: where install.sh lies, or dist/ beside it)
  --version V       which version, where there are several; without --from, one that was installed
                    before and is still there (roll back)
  --sha256 HEX      checksum of the program, where there is no SHA256SUMS
  --key FILE        public key, of GnuPG (.asc, .gpg) or minisign (.pub): SHA256SUMS must be signed with it
                    (SHA256SUMS.asc or SHA256SUMS.minisig beside it)
  --prefix DIR      default: /usr/local
  --user NAME       system user that agents run as, made if missing (default: testflinger)
  --agent NAME --config FILE
                    set up an agent: FILE becomes its configuration, if 'check' finds no mistake in it
  --force           replace a configuration that differs, without asking
  --config-dir DIR  run all agents of this host in one service, testflinger-agents: one for each DIR/*.conf and
                    DIR/NAME/testflinger-agent.conf. With /etc/testflinger-agent, agents that have services of
                    their own move over, and their jobs go on
  --per-agent       and back: a service for each /etc/testflinger-agent/NAME/testflinger-agent.conf
  --no-reload       leave running agents on the version that they have
  --root DIR        install below DIR, for an image; makes no user now, but at the image's first boot
  --arch ARCH       with --root: x86_64 or aarch64, where the image is for another machine
  --uninstall       remove the program; configuration and undelivered results stay
  --stop            with --uninstall: stop and disable all agents first, running jobs in order
  --purge           with --uninstall: remove configuration, results and the user, too
EOF
}

say() { printf '%s\n' "$*"; }
fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}
misused() {
  printf 'install.sh: %s (see --help)\n' "$*" >&2
  exit 2
}

from='' version='' sha256='' prefix=/usr/local user=testflinger agent='' config='' config_dir=''
root='' arch='' uninstall='' purge='' stop='' force='' key='' per_agent='' no_reload=''
while [ $# -gt 0 ]; do
  case $1 in
    --from | --version | --sha256 | --key | --prefix | --user | --agent | --config | --config-dir | --root | --arch)
      [ $# -ge 2 ] || misused "$1 needs a value"
      case $1 in
        --from) from=$2 ;;
        --version) version=$2 ;;
        --sha256) sha256=$2 ;;
        --key) key=$2 ;;
        --prefix) prefix=${2%/} ;;
        --user) user=$2 ;;
        --agent) agent=$2 ;;
        --config) config=$2 ;;
        --config-dir) config_dir=${2%/} ;;
        --root) root=${2%/} ;;
        --arch) arch=$2 ;;
      esac
      shift
      ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    --stop) stop=yes ;;
    --force) force=yes ;;
    --per-agent) per_agent=yes ;;
    --no-reload) no_reload=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) misused "unknown option '$1'" ;;
  esac
  shift
done

# These go into a unit file and into scripts.
case $prefix in
  /*[!A-Za-z0-9/._-]*) misused "--prefix has characters that a unit file cannot take: '$prefix'" ;;
  /?*) ;;
  *) misused "--prefix must be an absolute path: '$prefix'" ;;
esac
case $user in
  '' | [!a-z_]* | *[!a-z0-9_-]*) misused "--user is no name for a system user: '$user'" ;;
esac
case $config_dir in
  '') ;;
  /*[!A-Za-z0-9/._-]*) misused "--config-dir has characters that a unit file cannot take: '$config_dir'" ;;
  /?*) [ -z "$per_agent" ] || misused "--config-dir and --per-agent exclude each other" ;;
  *) misused "--config-dir must be an absolute path: '$config_dir'" ;;
esac
case $agent in
  '') [ -z "$config" ] || misused "--config needs --agent" ;;
  [!A-Za-z0-9_]* | *[!A-Za-z0-9_.:-]*)
    misused "--agent may have letters, digits and _ . : - (it becomes the unit's instance): '$agent'"
    ;;
  *)
    [ -n "$config" ] || misused "--agent needs --config"
    [ -r "$config" ] || fail "cannot read the configuration $config"
    ;;
esac
[ -z "$key" ] || [ -r "$key" ] || fail "cannot read the key $key"
[ -z "$key" ] || [ -z "$sha256" ] || misused "--key is for SHA256SUMS, which --sha256 takes the place of"
case $version in */* | *' '*) misused "--version is no version: '$version'" ;; esac
[ -z "$arch" ] || [ -n "$root" ] || misused "--arch needs --root"
[ -z "$purge" ] || [ -n "$uninstall" ] || misused "--purge needs --uninstall"
[ -z "$stop" ] || [ -n "$uninstall" ] || misused "--stop needs --uninstall"
[ -z "$force" ] || [ -n "$config" ] || misused "--force needs --config"
[ -z "$root" ] || [ -d "$root" ] || fail "there is no folder $root"
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "must be run as root (or with --root DIR)"

bin=$root$prefix/bin
lib=$root$prefix/lib/testflinger-agent
etc=$root/etc/testflinger-agent
state=$root/var/lib/testflinger-agent
cache=$root/var/cache/testflinger-agent
systemd=$root/etc/systemd/system
unit=$systemd/testflinger-agent@.service
host_unit=$systemd/testflinger-agents.service
# Such a unit starts with the host.
host_enabled=$systemd/multi-user.target.wants/testflinger-agents.service
sysusers=$root/etc/sysusers.d/testflinger-agent.conf
tmpfiles=$root/etc/tmpfiles.d/testflinger-agent.conf
share=$root$prefix/share
page=$share/man/man1/testflinger-agent.1
bash_completion=$share/bash-completion/completions/testflinger-agent
zsh_completion=$share/zsh/site-functions/_testflinger-agent
fish_completion=$share/fish/vendor_completions.d/testflinger-agent.fish

systemd_runs() { [ -z "$root" ] && [ -d /run/systemd/system ]; }
# In one line: those in one of these states; and all that run, have failed, or start with the host.
running_units() { # STATES
  systemctl list-units --plain --no-legend --state="$1" \
    'testflinger-agent@*.service' testflinger-agents.service | cut -d ' ' -f 1 | tr '\n' ' '
}
known_units() { # PATTERN... ('disable' takes no pattern.)
  {
    systemctl list-units --all --plain --no-legend "$@"
    systemctl list-unit-files --no-legend "$@"
  } | cut -d ' ' -f 1 | grep -v '@\.service$' | sort -u | tr '\n' ' '
}
# The folder that the host's one service has.
host_dir=''
if [ -f "$host_unit" ]; then
  host_dir=$(sed -n 's|^ExecStart=.* --config-dir \(/[^ ]*\).*|\1|p' "$host_unit")
fi
# The configurations in a folder, in both layouts.
configs_in() {
  for file in "$1"/*.conf "$1"/*/testflinger-agent.conf; do
    [ ! -f "$file" ] || printf '%s\n' "$file"
  done
}

# --- uninstall -----------------------------------------------------------------------------------

if [ -n "$uninstall" ]; then
  # The unit says where the program is: elsewhere, it would be left behind.
  if [ -f "$unit" ]; then
    installed=$(sed -n 's|^ExecStart=\(/.*\)/bin/testflinger-agent .*|\1|p' "$unit")
    [ -z "$installed" ] || [ "$installed" = "$prefix" ] ||
      fail "it is installed in $installed: add --prefix $installed. Nothing was removed"
  fi
  if systemd_runs; then
    units=$(known_units 'testflinger-agent@*.service' testflinger-agents.service)
    running=$(running_units active,activating,reloading,deactivating)
    if [ -n "$running" ] && [ -z "$stop" ]; then
      fail "agents are running: $running
add --stop to have them stopped and disabled first, or stop them yourself. Nothing was removed"
    fi
    # shellcheck disable=SC2086 # a list of words is wanted
    [ -z "$units" ] || systemctl disable --now --quiet $units ||
      fail "cannot stop all agents. Nothing was removed"
  fi
  # In an image, or where systemd did not know them.
  rm -f -- "$systemd"/*.wants/testflinger-agent@*.service "$host_enabled"
  rm -f -- "$unit" "$host_unit" "$bin/testflinger-agent" "$bin/testflinger-device-connector" \
    "$bin/snappy-device-agent" "$sysusers" "$tmpfiles" "$page" "$bash_completion" "$zsh_completion" \
    "$fish_completion"
  rm -rf -- "$lib" "$cache"
  # What root's own commands have unpacked: the agents' copy is their user's, whom root does not trust.
  if [ -z "$root" ]; then
    for folder in "${XDG_CACHE_HOME-}" "${HOME-}/.cache"; do
      case $folder in /*) rm -rf -- "$folder/testflinger-agent" ;; esac
    done
  fi
  for folder in man/man1 bash-completion/completions bash-completion zsh/site-functions zsh \
    fish/vendor_completions.d fish; do
    # Only if nothing of others is in it.
    rmdir -- "$share/$folder" 2>/dev/null || :
  done
  ! systemd_runs || systemctl daemon-reload
  if [ -z "$purge" ]; then
    say "Removed. Left in place: $etc, $state and the user (--purge removes them, too)."
  else
    # Folders of agents that lie elsewhere are their owner's to remove.
    elsewhere=$({ configs_in "$etc" && configs_in "$root$host_dir"; } | tr '\n' '\0' |
      xargs -0 sed -n -E 's/^(execution|logging|results)_basedir:[[:space:]]*//p' /dev/null |
      grep -v -e '^/var/lib/testflinger-agent/' -e '^/tmp/testflinger/' | sort -u | tr '\n' ' ') || :
    case $host_dir/ in /etc/testflinger-agent/* | /) ;; *) elsewhere="$host_dir $elsewhere" ;; esac
    rm -rf -- "$etc" "$state" "$root/run/testflinger-agent" "$root/run/testflinger-agents" \
      "$systemd"/testflinger-agent@*.service.d "$systemd/testflinger-agents.service.d"
    # Everybody may put something there: only what is the agents' or root's.
    for owner in "$user" root; do
      find "$root/tmp" -maxdepth 1 -user "$owner" \( -name testflinger -o \
        -name 'testflinger-agent-*.lock' -o -name 'TESTFLINGER-DEVICE-*' \) \
        -exec rm -rf -- {} + 2>/dev/null || :
    done
    [ -z "$elsewhere" ] || say "Left in place, for configurations named them: $elsewhere"
    ! systemd_runs || systemctl daemon-reload
    if [ -z "$root" ] && id "$user" >/dev/null 2>&1; then
      if command -v userdel >/dev/null; then userdel "$user"; else deluser "$user"; fi
    fi
    if [ -n "$root" ]; then
      say "Removed, with configuration and state."
    else
      say "Removed, with configuration, state and the user $user."
    fi
  fi
  exit 0
fi

# --- one service, or one for each agent ------------------------------------------------------------

if [ -n "$per_agent" ]; then
  case $host_dir in
    '') fail "there is no testflinger-agents.service here whose agents could get services of their own" ;;
    /etc/testflinger-agent) ;;
    *)
      fail "only agents in /etc/testflinger-agent can have services of their own: move $host_dir/NAME there, \
and install with --config-dir /etc/testflinger-agent first. Nothing was changed"
      ;;
  esac
  for file in "$etc"/*/testflinger-agent.conf; do
    name=$(basename -- "$(dirname -- "$file")")
    case $name in
      '*' | [A-Za-z0-9_]*) ;;
      *) fail "no service can have the name of $file: rename its folder. Nothing was changed" ;;
    esac
  done
  for file in "$etc"/*.conf; do
    [ ! -f "$file" ] || fail "an agent with a service of its own has a folder of its own: move $file to \
/etc/testflinger-agent/NAME/testflinger-agent.conf. Nothing was changed"
  done
elif [ -n "$config_dir" ]; then
  mkdir -p -- "$etc" || fail "cannot make the folder $etc"
  [ -d "$root$config_dir" ] || fail "there is no folder $root$config_dir"
fi
wants_host=''
[ -z "$config_dir" ] || wants_host=yes
is_new_host=''
[ "${config_dir:-$host_dir}" = "$host_dir" ] || is_new_host=yes
[ -n "$config_dir$per_agent" ] || config_dir=$host_dir

# --- this machine --------------------------------------------------------------------------------

[ -n "$arch" ] || arch=$(uname -m)
case $arch in
  x86_64 | amd64) arch=x86_64 loader=/lib64/ld-linux-x86-64.so.2 ;;
  aarch64 | arm64) arch=aarch64 loader=/lib/ld-linux-aarch64.so.1 ;;
  *) fail "there is no testflinger-agent for $arch, only for x86_64 and aarch64" ;;
esac
# An image may be filled later: there is something to check only where there are libraries.
if [ -z "$root" ] || [ -e "$root/lib" ]; then
  [ -e "$root$loader" ] || [ -L "$root$loader" ] ||
    fail "needs glibc: there is no $root$loader (musl systems such as Alpine cannot run it)"
fi

# --- temporary files, and their end --------------------------------------------------------------

work=$(mktemp -d)
staged=''
newline='
'
cleanup() {
  rm -rf -- "$work"
  [ -z "$staged" ] || printf '%s' "$staged" | while read -r name; do rm -f -- "$name"; done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Every file is written beside its place, and all are moved into place at the end, at once.
new_name() { printf '%s/.%s.new' "$(dirname -- "$1")" "$(basename -- "$1")"; }
stage() { # PLACE MODE, content on standard input (redirected, not piped: $staged must be ours)
  folder=$(dirname -- "$1")
  mkdir -p -- "$folder" || fail "cannot make the folder $folder"
  new=$(new_name "$1")
  # Not what another account may have put there.
  rm -f -- "$new" || fail "cannot write to $folder"
  staged=$staged$new$newline
  cat >"$new" || fail "cannot write $new (is the disk full, or read-only?)"
  chmod "$2" "$new"
}

# --- the program ---------------------------------------------------------------------------------

fetch() { # URL FILE
  case $1 in
    https://*) ;;
    http://*) [ -n "$sha256" ] || fail "give --sha256 for $1: http does not protect it against changes" ;;
    *) fail "only https and http addresses can be fetched: $1" ;;
  esac
  if command -v curl >/dev/null; then
    curl -fsSL --retry 3 -o "$2" -- "$1" || fail "cannot fetch $1"
  elif command -v wget >/dev/null; then
    wget -q -O "$2" -- "$1" || fail "cannot fetch $1"
  else
    fail "needs curl or wget to fetch $1"
  fi
}

# Names in the SHA256SUMS $1 that are for this machine and, if asked for, of that version.
candidates() {
  while read -r _ name; do
    case ${name#\*} in
      testflinger-agent-"${version:-[0-9]*}"-"$arch") printf '%s\n' "${name#\*}" ;;
      testflinger-agent-[0-9]*-"$arch") [ -n "$version" ] || printf '%s\n' "${name#\*}" ;;
    esac
  done <"$1"
}
choose() { # SHA256SUMS PLACE: sets name
  name=$(candidates "$1")
  case $name in
    '') fail "there is no testflinger-agent${version:+ $version} for $arch in $2" ;;
    *"$newline"*) fail "there are several versions in $2, choose one with --version:$newline$name" ;;
  esac
}

# The versions that can be rolled back to.
kept() {
  versions=''
  for file in "$lib"/testflinger-agent-[0-9]*-"$arch"; do
    [ ! -f "$file" ] || versions="$versions $(basename -- "$file" "-$arch" | cut -d - -f 3-)"
  done
  printf '%s' "${versions:- none}" | cut -c 2-
}

if [ -z "$from" ] && [ -n "$version" ] && [ -f "$lib/testflinger-agent-$version-$arch" ]; then
  from=$lib/testflinger-agent-$version-$arch
fi
if [ -z "$from" ]; then
  here=$(cd -- "$(dirname -- "$0")" && pwd)
  for place in "$here" "$here/dist"; do
    if [ -z "$from" ] && [ -f "$place/SHA256SUMS" ]; then from=$place; fi
  done
  # Another kind of service needs no other program.
  if [ -z "$from" ] && [ -z "$version" ] && [ -n "$wants_host$per_agent" ] && [ -L "$bin/testflinger-agent" ]; then
    from=$lib/$(basename -- "$(readlink -- "$bin/testflinger-agent")")
  fi
  if [ -z "$from" ] && [ -n "$version" ]; then
    fail "version $version is not kept on this host (there is: $(kept)): say where it is with --from"
  fi
  [ -n "$from" ] || fail "say where the program is with --from FILE|FOLDER|URL"
fi

sums=$work/SHA256SUMS
case $from in
  *://*)
    case ${from##*/} in
      testflinger-agent-[0-9]*) name=${from##*/} place=${from%/*} ;;
      *) name='' place=${from%/} ;;
    esac
    if [ -z "$sha256" ]; then fetch "$place/SHA256SUMS" "$sums"; fi
    if [ -z "$name" ]; then
      [ -s "$sums" ] || fail "--sha256 goes with the address of the program, not of a folder: $from"
      choose "$sums" "$place"
    fi
    source=$work/program
    fetch "$place/$name" "$source"
    ;;
  *)
    [ -e "$from" ] || fail "there is no $from"
    if [ -d "$from" ]; then
      [ -r "$from/SHA256SUMS" ] || fail "there is no SHA256SUMS in $from"
      choose "$from/SHA256SUMS" "$from"
      place=$from
    else
      name=$(basename -- "$from") place=$(dirname -- "$from")
    fi
    source=$place/$name
    if [ -r "$source.sha256" ]; then
      cat -- "$source.sha256" >"$sums"
    elif [ -r "$place/SHA256SUMS" ]; then
      cat -- "$place/SHA256SUMS" >"$sums"
    fi
    ;;
esac

if [ -n "$key" ]; then
  [ -s "$sums" ] || fail "there is no SHA256SUMS in $place that could be signed"
  case $key in *.pub) signature=SHA256SUMS.minisig ;; *) signature=SHA256SUMS.asc ;; esac
  case $from in
    *://*) fetch "$place/$signature" "$work/$signature" ;;
    *)
      [ -r "$place/$signature" ] || fail "there is no $signature in $place"
      cat -- "$place/SHA256SUMS" >"$sums"
      cat -- "$place/$signature" >"$work/$signature"
      ;;
  esac
  case $signature in
    *.minisig)
      command -v minisign >/dev/null || fail "needs minisign to check $signature"
      minisign -Vq -p "$key" -m "$sums" -x "$work/$signature" >/dev/null 2>&1 ||
        fail "the signature of $place/SHA256SUMS is not one of $key. Nothing was changed"
      ;;
    *)
      command -v gpg >/dev/null || fail "needs gpg to check $signature"
      # A keyring of this key alone: what else the user trusts does not matter.
      mkdir -m 0700 "$work/keys"
      gpg --homedir "$work/keys" --batch --quiet --import <"$key" 2>/dev/null ||
        fail "$key is no public key of GnuPG"
      gpg --homedir "$work/keys" --batch --quiet --trust-model always \
        --verify "$work/$signature" "$sums" 2>/dev/null ||
        fail "the signature of $place/SHA256SUMS is not one of $key. Nothing was changed"
      ;;
  esac
fi

case $name in
  testflinger-agent-[0-9]*-x86_64 | testflinger-agent-[0-9]*-aarch64) ;;
  *) fail "the program must keep its name, testflinger-agent-VERSION-ARCH: $name" ;;
esac
found=${name#testflinger-agent-}
found=${found%-*}
[ -z "$version" ] || [ "$version" = "$found" ] || fail "$name is not version $version"
version=$found
[ "${name##*-}" = "$arch" ] || fail "$name is for ${name##*-}, and this machine is $arch"

if [ -z "$sha256" ] && [ -s "$sums" ]; then
  while read -r sum listed; do
    if [ "${listed#\*}" = "$name" ]; then sha256=$sum; fi
  done <"$sums"
fi
[ -n "$sha256" ] || fail "no checksum for $name: put SHA256SUMS beside it, or give --sha256"

program=$lib/$name
mkdir -p -- "$lib" 2>/dev/null || fail "cannot make the folder $lib (is it read-only?)"
# What is installed is the copy that was checked, not what the source may be a moment later.
stage "$program" 0755 <"$source"
copy=$(new_name "$program")
actual=$(sha256sum -- "$copy")
actual=${actual%% *}
[ "$actual" = "$sha256" ] ||
  fail "wrong checksum for $source: it is $actual, and should be $sha256. Nothing was changed"

# The name is a claim; the first bytes are not: a script that names its machine, or an ELF program.
magic=$(od -An -tx1 -N 20 -- "$copy" | tr -d ' \n')
case $magic in
  7f454c46??????????????????????????3e00) really=x86_64 ;;
  7f454c46??????????????????????????b700) really=aarch64 ;;
  2321*) really=$(head -c 2000 -- "$copy" | sed -n 's/^arch=//p') ;;
  *) really='no machine that is known' ;;
esac
[ "$really" = "$arch" ] || fail "$source is for $really, and this machine is $arch"

# --- everything else -----------------------------------------------------------------------------

stage "$program.sha256" 0644 <<EOF
$sha256  $name
EOF

for wrapper in testflinger-device-connector snappy-device-agent; do
  stage "$bin/$wrapper" 0755 <<EOF
#!/bin/sh
# Phase commands call device connectors by this name.
exec $prefix/bin/testflinger-agent device-connector "\$@"
EOF
done

# Lines of one kind of service begin with 'one:', those of the other with 'all:'.
sed -e "s|@PREFIX@|$prefix|g" -e "s|@USER@|$user|g" -e "s|@DIR@|$config_dir|g" >"$work/units" <<'EOF'
[Unit]
one:Description=Testflinger agent %i
all:Description=Testflinger agents of this host
# Only an order: an agent waits for the server as long as it takes.
Wants=network-online.target
After=network-online.target
# A host with a wrong configuration or without its server must come back by itself once that is
# mended, whether it takes a minute or a week: never give up.
StartLimitIntervalSec=0

[Service]
# No core files: they would hold what the agent knows. A phase that wants them may raise the limit.
LimitCORE=0:infinity
# Ready when the agent runs, not when the server answers.
Type=notify
# Messages are sent by systemd-notify, a child. The agent takes the socket's address out of the
# environment, lest a phase script speak for it by accident.
NotifyAccess=all
# A restart that was asked for is no failure, and has a status by which systemd can tell.
one:ExecStart=@PREFIX@/bin/testflinger-agent -c /etc/testflinger-agent/%i/testflinger-agent.conf \
all:ExecStart=@PREFIX@/bin/testflinger-agent run --config-dir @DIR@ \
  --restart-status 75
SuccessExitStatus=75
one:# SIGHUP: the agent ends at once, and the next one takes up its job where it is. To be used after an
one:# upgrade and after changing the configuration. (The shell's own kill: not every host has /bin/kill.)
all:# SIGHUP: after an upgrade the process ends at once, and the next one takes up all jobs where they are;
all:# else it reads the configurations again. (The shell's own kill: not every host has /bin/kill.)
ExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'

User=@USER@
one:# Proxies, certificates, InfluxDB: for all agents, then for this one. Absent files do not matter.
all:# Proxies, certificates, InfluxDB. An absent file does not matter.
EnvironmentFile=-/etc/testflinger-agent/environment
one:EnvironmentFile=-/etc/testflinger-agent/%i/environment
one:WorkingDirectory=%S/testflinger-agent/%i
all:WorkingDirectory=%S/testflinger-agent
# /var/lib: the record of jobs, undelivered results, and the refresh token, which all agents share.
one:StateDirectory=testflinger-agent testflinger-agent/%i
all:StateDirectory=testflinger-agent
StateDirectoryMode=0750
# /var/cache: the unpacked program, shared by all agents of the host.
CacheDirectory=testflinger-agent
# /run: kept over a restart, for a restart during a job is a normal thing.
one:RuntimeDirectory=testflinger-agent/%i
all:RuntimeDirectory=testflinger-agents
RuntimeDirectoryPreserve=restart
one:SyslogIdentifier=testflinger-agent@%i
all:SyslogIdentifier=testflinger-agents

# always: an end that systemd did not order is none that a lab wants, whatever its status.
Restart=always
# A job that was left running does not wait; see ExecStopPost below for what failed.
RestartSec=200ms
# The first start unpacks 100 MB, which takes its time on an SD card.
TimeoutStartSec=5min
one:# Three missed pings. They stop when the agent's loop hangs; an outage of the server does not stop
one:# them.
all:# Three missed pings. They stop when the loop of the process hangs, or those of all agents; an outage of
all:# the server does not stop them.
WatchdogSec=3min
# SIGTERM goes to the agent alone: it ends the running phase, runs cleanup and delivers, in this
# order, within 90 s. When the agent is killed, crashes or hands over, its job goes on.
KillMode=process
TimeoutStopSec=100s
# A test that eats all memory is killed by the kernel; that must not stop the agent.
OOMPolicy=continue
# Control groups for jobs may be made below the unit's.
Delegate=yes
all:# The jobs of all agents are counted here, which one service's share of the host may be too few for.
all:TasksMax=infinity
# What runs on while the agent is away must not keep the next one from starting: systemd cannot start it
# in a group that hands controllers on. An agent that ends in order has seen to it itself.
ExecStopPost=-/bin/sh -c 'for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do \
  cd "$$root$$(sed -n "/^0::/{s///;s,/[.]control$$,,;p}" /proc/self/cgroup)" 2>/dev/null || continue; \
  for file in */*/cgroup.subtree_control */cgroup.subtree_control cgroup.subtree_control; do \
    for one in $$(cat "$$file" 2>/dev/null); do echo "-$$one" >"$$file"; done; done; done'
# What failed is tried again in 10 s.
ExecStopPost=-/bin/sh -c 'case "$$EXIT_CODE $$EXIT_STATUS" in "exited 0" | "exited 75") ;; *) sleep 10 ;; esac'

# Hardening that does not get in the way of ssh, docker and sudo in phase scripts. Everything
# stronger makes systemd set NoNewPrivileges, and sudo stops working; for hosts whose scripts need
# no sudo there is strict.conf (see docs/operations.md).
# Marker files and, by default, jobs are in the host's /tmp.
PrivateTmp=no
# What no phase of a job should do to the host, not even with sudo: reboot it, set its clock,
# change mandatory access control and auditing, wake it up.
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_TIME CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LEASE
CapabilityBoundingSet=~CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_SYS_PACCT
KeyringMode=private

[Install]
WantedBy=multi-user.target
EOF
sed -e '/^all:/d' -e 's/^one://' "$work/units" >"$work/unit"
stage "$unit" 0644 <"$work/unit"
if [ -n "$config_dir" ]; then
  sed -e '/^one:/d' -e 's/^all://' "$work/units" >"$work/unit"
  stage "$host_unit" 0644 <"$work/unit"
fi

stage "$lib/strict.conf" 0644 <<'EOF'
# For hosts whose phase scripts need neither sudo nor anything else set-uid. To use it:
#   mkdir -p /etc/systemd/system/testflinger-agent@.service.d
#   cp strict.conf /etc/systemd/system/testflinger-agent@.service.d/
#   systemctl daemon-reload
# With all agents in one service it is testflinger-agents.service.d.
# docker still works for a member of the group docker, for it is reached through a socket.
[Service]
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
# Everything is read-only but the agent's own folders and these.
ProtectSystem=strict
ReadWritePaths=/tmp /var/tmp
# Not 'yes': keys and scripts may lie in a home.
ProtectHome=read-only
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# Not ProtectControlGroups: each job has a control group of its own, below the unit's; the others belong
# to root. Not MemoryDenyWriteExecute: the runtime compiles as it runs. Not PrivateDevices and PrivateNetwork:
# serial lines, USB and the network are what an agent is for.
EOF

stage "$etc/testflinger-agent.conf.example" 0644 <<'EOF'
# A configuration of testflinger-agent. Copy it to /etc/testflinger-agent/NAME/testflinger-agent.conf,
# change it, check it with 'testflinger-agent check FILE', and start testflinger-agent@NAME.

# Unique among all agents of the server.
agent_id: my-device-1
server_address: https://testflinger.example.com
# Jobs are taken from these queues.
job_queues:
  - my-device-1
  - my-devices

# Seconds between two questions for a job.
polling_interval: 10

# One folder per job while it runs; logs; and what could not be delivered yet.
execution_basedir: /var/lib/testflinger-agent/my-device-1/run
logging_basedir: /var/lib/testflinger-agent/my-device-1/logs
results_basedir: /var/lib/testflinger-agent/my-device-1/results

# What runs in each phase of a job; a phase without a command is skipped.
#setup_command: ""
#provision_command: testflinger-device-connector noprovision provision -c /etc/testflinger-agent/my-device-1/device.yaml testflinger.json
#test_command: testflinger-device-connector noprovision runtest -c /etc/testflinger-agent/my-device-1/device.yaml testflinger.json
#reserve_command: testflinger-device-connector noprovision reserve -c /etc/testflinger-agent/my-device-1/device.yaml testflinger.json
#cleanup_command: ""

# Shown by the server.
#provision_type: noprovision
#location: rack 4
#identifier: serial-number
#advertised_queues:
#  my-devices: All devices of that kind

# Upper limits for what a job may ask, in seconds.
#global_timeout: 14400
#output_timeout: 900
EOF

# --- the user, and the configuration of an agent ---------------------------------------------------

if [ -n "$root" ]; then
  stage "$sysusers" 0644 <<EOF
u $user - "Testflinger agent" /var/lib/testflinger-agent /usr/sbin/nologin
EOF
  stage "$tmpfiles" 0644 <<EOF
# Device connectors' files may hold passwords: readable for the agents alone.
# Scripts stay executable: the ~ leaves out what a file does not have.
Z /etc/testflinger-agent/*/* ~0750 root $user
EOF
elif ! id "$user" >/dev/null 2>&1; then
  nologin=$(command -v nologin || printf /bin/false)
  if command -v useradd >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/testflinger-agent --shell "$nologin" \
      --comment "Testflinger agent" "$user" || fail "cannot make the user $user"
  elif command -v adduser >/dev/null; then
    # busybox
    adduser -S -D -H -h /var/lib/testflinger-agent -s "$nologin" "$user" ||
      fail "cannot make the user $user"
  else
    fail "needs useradd or adduser to make the user $user"
  fi
fi

if [ -n "$agent" ]; then
  installed=$etc/$agent/testflinger-agent.conf
  if [ -f "$installed" ] && [ -z "$force" ] && ! cmp -s -- "$config" "$installed"; then
    [ -t 0 ] || fail "$installed differs from $config: add --force to replace it. Nothing was changed"
    printf '%s differs from %s. Replace it? [y/N] ' "$installed" "$config" >&2
    read -r reply
    case $reply in
      [yY]*) ;;
      *) fail "$installed stays as it is. Nothing was changed" ;;
    esac
  fi
  stage "$installed" 0640 <"$config"
  # So that the agent, and nobody else, can read it.
  [ -n "$root" ] || chgrp -- "$(id -gn "$user")" "$(new_name "$installed")"
fi

# --- what the program says of itself -----------------------------------------------------------------

as_user() {
  if command -v runuser >/dev/null; then
    runuser -u "$user" -- "$@"
  else
    # busybox
    # shellcheck disable=SC2016 # for the other shell
    su -s /bin/sh "$user" -c 'exec "$0" "$@"' -- "$@"
  fi
}
# As the agents run it, and unpacked where they look for it: their next start is a quick one. A
# program that does not run on this host must not take the place of one that does.
ask() { # FILE COMMAND...
  answer=$1
  shift
  (cd / && as_user "$copy" "$@") >"$answer" 2>"$work/complaint" ||
    fail "the program does not run on this host, and was not installed: $(cat "$work/complaint")"
}
# Not for an image, whose programs may be for another machine.
if [ -z "$root" ]; then
  # It belongs to the user of an earlier installation: it is not trusted, and unpacked again.
  if [ -e "$cache" ]; then
    owner=$(stat -c %u -- "$cache")
    [ "$owner" = 0 ] || [ "$owner" = "$(id -u "$user")" ] || rm -rf -- "$cache"
  fi
  mkdir -p -- "$cache" || fail "cannot make the folder $cache"
  # systemd would do the same. Root's alone: it was made by trying the file out before.
  [ "$(stat -c %u -- "$cache")" != 0 ] || chown -Rh -- "$user:$(id -gn "$user")" "$cache"
  ask "$work/text" help --man
  stage "$page" 0644 <"$work/text"
  for shell in bash zsh fish; do
    ask "$work/text" completion "$shell"
    case $shell in
      bash) stage "$bash_completion" 0644 <"$work/text" ;;
      zsh) stage "$zsh_completion" 0644 <"$work/text" ;;
      fish) stage "$fish_completion" 0644 <"$work/text" ;;
    esac
  done
fi

# A configuration that cannot be used disturbs no other, but an agent that runs must not be lost on its way.
if [ -n "$config_dir" ] && [ -z "$root" ] && [ -n "$(configs_in "$config_dir")" ]; then
  if (cd / && as_user "$copy" check --config-dir "$config_dir") >"$work/text" 2>&1; then
    [ -z "$is_new_host" ] || grep ': warning: ' "$work/text" >&2 || :
  else
    cat "$work/text" >&2
    [ -z "$is_new_host" ] || fail "'check' finds mistakes in $config_dir. Nothing was changed"
  fi
fi

if [ -n "$agent" ] && [ -z "$root" ]; then
  # Where it will lie: files that it names may be beside it.
  checked=$(new_name "$installed")
  if ! (cd / && as_user "$copy" check "$checked") >"$work/text" 2>&1; then
    sed "s|$checked|$config|g" "$work/text" >&2
    fail "'check' finds mistakes in $config. Nothing was changed"
  fi
fi

# --- now -----------------------------------------------------------------------------------------

# From here on it takes a few milliseconds, and is not to be interrupted.
trap '' INT TERM HUP
previous=''
[ ! -L "$bin/testflinger-agent" ] || previous=$(basename -- "$(readlink -- "$bin/testflinger-agent")")
# What is new for agents that run: the program, or their unit.
is_changed=''
[ "$previous" = "$name" ] && cmp -s -- "$program" "$copy" || is_changed=yes
for file in "$unit" "$host_unit"; do
  [ ! -f "$file" ] || [ ! -f "$(new_name "$file")" ] || cmp -s -- "$file" "$(new_name "$file")" || is_changed=yes
done
link=$(new_name "$bin/testflinger-agent")
rm -f -- "$link"
ln -s "$prefix/lib/testflinger-agent/$name" "$link"
staged=$staged$link$newline

place_of() {
  moved=$(basename -- "$1" .new)
  printf '%s/%s' "$(dirname -- "$1")" "${moved#.}"
}
# In the order in which they were staged: the program first, the link to it last.
printf '%s' "$staged" | while read -r new; do mv -f -- "$new" "$(place_of "$new")"; done
staged=''

# The version before this one stays, to roll back to.
for old in "$lib"/testflinger-agent-*; do
  case ${old##*/} in
    "$name" | "$name.sha256" | "$previous" | "$previous.sha256") ;;
    *) rm -f -- "$old" ;;
  esac
done

# --- services ------------------------------------------------------------------------------------

# Stops services so that their jobs go on, for others to take them up. (The file of the program has just been
# replaced: that is why SIGHUP means to end.)
hand_over() { # UNIT...
  for one in "$@"; do
    mkdir -p -- "/run/systemd/system/$one.d"
    printf '[Service]\nKillSignal=SIGHUP\n' >"/run/systemd/system/$one.d/hand-over.conf"
  done
  systemctl daemon-reload
  systemctl disable --now --quiet "$@" || say "Not all of these could be stopped and disabled: $*"
  for one in "$@"; do rm -rf -- "/run/systemd/system/$one.d"; done
  systemctl daemon-reload
}
# In an image it is the link that enables a unit.
link_enabled() { # UNIT FILE
  mkdir -p -- "$systemd/multi-user.target.wants"
  ln -sf "../$2" "$systemd/multi-user.target.wants/$1"
}

# What is to run: the host's one service, or one for each agent, or what runs already.
wanted=''
moved=''
if [ -n "$wants_host" ]; then
  wanted=testflinger-agents.service
  [ "$config_dir" != /etc/testflinger-agent ] || moved='testflinger-agent@*.service'
elif [ -n "$per_agent" ]; then
  moved=testflinger-agents.service
  for file in "$etc"/*/testflinger-agent.conf; do
    [ ! -f "$file" ] || wanted="$wanted testflinger-agent@$(basename -- "$(dirname -- "$file")").service"
  done
fi
reloaded=''
# shellcheck disable=SC2086 # lists of words are wanted
if systemd_runs; then
  systemctl daemon-reload
  [ -z "$moved" ] || moved=$(known_units "$moved")
  [ -z "$moved" ] || hand_over $moved
  running=$(running_units active)
  if [ -n "$running" ] && [ -n "$is_changed" ] && [ -z "$no_reload" ]; then
    systemctl reload $running || fail "version $version is installed, and not all could be reloaded: $running"
    reloaded=$running
  fi
  [ -z "$per_agent" ] || rm -f -- "$host_unit"
  systemctl daemon-reload
  [ -z "$wanted" ] || systemctl enable --now --quiet $wanted ||
    fail "version $version is installed, and not all could be started: $wanted"
elif [ -n "$wanted" ]; then
  # shellcheck disable=SC2086 # patterns are wanted
  (cd -- "$systemd" && rm -f -- multi-user.target.wants/$moved)
  [ -z "$per_agent" ] || rm -f -- "$host_unit"
  for one in $wanted; do
    case $one in *@*) link_enabled "$one" testflinger-agent@.service ;; *) link_enabled "$one" "$one" ;; esac
  done
fi

say "testflinger-agent $version is installed in $root$prefix."
if [ -n "$reloaded" ]; then
  say "Reloaded, with jobs going on: $reloaded"
elif [ -n "$previous" ] && [ "$previous" != "$name" ]; then
  say "Running agents go on with the version that they were started with."
fi
if [ -n "$wanted" ]; then
  if systemd_runs; then say "Enabled and started: ${wanted# }"; else say "Enabled: ${wanted# }"; fi
fi
say "Next:"
if [ -n "$wants_host" ]; then
  say "  testflinger-agent status"
  say "  journalctl -u testflinger-agents -f"
elif [ -n "$per_agent$reloaded" ]; then
  say "  testflinger-agent status"
  say "  journalctl -u 'testflinger-agent*' -f"
elif [ -n "$previous" ] && [ "$previous" != "$name" ] && [ -z "$agent" ]; then
  say "  systemctl reload 'testflinger-agent*'    # jobs go on meanwhile"
  say "  journalctl -u 'testflinger-agent*' -f"
elif [ -n "$agent" ] && [ "$config_dir" = /etc/testflinger-agent ]; then
  say "  testflinger-agent check --config-dir $config_dir"
  say "  testflinger-agent status    # testflinger-agents takes it up within 10 s"
elif [ -n "$agent" ]; then
  say "  testflinger-agent check /etc/testflinger-agent/$agent/testflinger-agent.conf"
  say "  systemctl enable --now testflinger-agent@$agent"
else
  say "  sh install.sh --agent NAME --config FILE    # example: /etc/testflinger-agent/testflinger-agent.conf.example"
  say "  systemctl enable --now testflinger-agent@NAME"
fi
