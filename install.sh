#!/bin/sh
# Installs testflinger-agent on this host, or into an image with --root. Runs again without harm:
# for an upgrade, a roll-back, or another agent. A running agent is left alone; it uses the new
# version from its next restart on.
set -eu
# Files must be readable for the agent's user, whatever the umask of whoever installs.
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

from='' version='' sha256='' prefix=/usr/local user=testflinger agent='' config=''
root='' arch='' uninstall='' purge='' stop='' force='' key=''
while [ $# -gt 0 ]; do
  case $1 in
    --from | --version | --sha256 | --key | --prefix | --user | --agent | --config | --root | --arch)
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
        --root) root=${2%/} ;;
        --arch) arch=$2 ;;
      esac
      shift
      ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    --stop) stop=yes ;;
    --force) force=yes ;;
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
unit=$root/etc/systemd/system/testflinger-agent@.service
sysusers=$root/etc/sysusers.d/testflinger-agent.conf
tmpfiles=$root/etc/tmpfiles.d/testflinger-agent.conf
share=$root$prefix/share
page=$share/man/man1/testflinger-agent.1
bash_completion=$share/bash-completion/completions/testflinger-agent
zsh_completion=$share/zsh/site-functions/_testflinger-agent
fish_completion=$share/fish/vendor_completions.d/testflinger-agent.fish

systemd_runs() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

# --- uninstall -----------------------------------------------------------------------------------

if [ -n "$uninstall" ]; then
  # The unit says where the program is: elsewhere, it would be left behind.
  if [ -f "$unit" ]; then
    installed=$(sed -n 's|^ExecStart=\(/.*\)/bin/testflinger-agent .*|\1|p' "$unit")
    [ -z "$installed" ] || [ "$installed" = "$prefix" ] ||
      fail "it is installed in $installed: add --prefix $installed. Nothing was removed"
  fi
  if systemd_runs; then
    # Those that run or have failed, and those that start with the host. ('disable' takes no pattern.)
    units=$({
      systemctl list-units --all --plain --no-legend 'testflinger-agent@*.service'
      systemctl list-unit-files --no-legend 'testflinger-agent@*.service'
    } | cut -d ' ' -f 1 | grep -v '@\.service$' | sort -u | tr '\n' ' ')
    running=$(systemctl list-units --plain --no-legend 'testflinger-agent@*.service' |
      cut -d ' ' -f 1 | tr '\n' ' ')
    if [ -n "$running" ] && [ -z "$stop" ]; then
      fail "agents are running: $running
add --stop to have them stopped and disabled first, or stop them yourself. Nothing was removed"
    fi
    # shellcheck disable=SC2086 # a list of words is wanted
    [ -z "$units" ] || systemctl disable --now --quiet $units ||
      fail "cannot stop all agents. Nothing was removed"
  fi
  # In an image, or where systemd did not know them.
  rm -f -- "$root"/etc/systemd/system/*.wants/testflinger-agent@*.service
  rm -f -- "$unit" "$bin/testflinger-agent" "$bin/testflinger-device-connector" \
    "$bin/snappy-device-agent" "$sysusers" "$tmpfiles" "$page" "$bash_completion" "$zsh_completion" \
    "$fish_completion"
  rm -rf -- "$lib" "$cache"
  ! systemd_runs || systemctl daemon-reload
  if [ -z "$purge" ]; then
    say "Removed. Left in place: $etc, $state and the user (--purge removes them, too)."
  else
    # Folders of agents that lie elsewhere are their owner's to remove.
    elsewhere=$(sed -n -E 's/^(execution|logging|results)_basedir:[[:space:]]*//p' \
      "$etc"/*/testflinger-agent.conf 2>/dev/null | grep -v -e '^/var/lib/testflinger-agent/' \
      -e '^/tmp/testflinger/' | sort -u | tr '\n' ' ') || :
    rm -rf -- "$etc" "$state" "$root/run/testflinger-agent" \
      "$root"/etc/systemd/system/testflinger-agent@*.service.d
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
    http://*) [ -n "$sha256" ] || fail "give --sha256 for $1: over http anybody may have changed it" ;;
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

sed -e "s|@PREFIX@|$prefix|g" -e "s|@USER@|$user|g" >"$work/unit" <<'EOF'
[Unit]
Description=Testflinger agent %i
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
ExecStart=@PREFIX@/bin/testflinger-agent -c /etc/testflinger-agent/%i/testflinger-agent.conf \
  --restart-status 75
SuccessExitStatus=75
# SIGHUP: the agent ends at once, and the next one takes up its job where it is. To be used after an
# upgrade and after changing the configuration. (The shell's own kill: not every host has /bin/kill.)
ExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'

User=@USER@
# Proxies, certificates, InfluxDB: for all agents, then for this one. Absent files do not matter.
EnvironmentFile=-/etc/testflinger-agent/environment
EnvironmentFile=-/etc/testflinger-agent/%i/environment
WorkingDirectory=%S/testflinger-agent/%i
# /var/lib: the record of jobs, undelivered results, and the refresh token, which all agents share.
StateDirectory=testflinger-agent testflinger-agent/%i
StateDirectoryMode=0750
# /var/cache: the unpacked program, shared by all agents of the host.
CacheDirectory=testflinger-agent
# /run: kept over a restart, for a restart during a job is a normal thing.
RuntimeDirectory=testflinger-agent/%i
RuntimeDirectoryPreserve=restart
SyslogIdentifier=testflinger-agent@%i

# always: an end that systemd did not order is none that a lab wants, whatever its status.
Restart=always
# A job that was left running does not wait; see ExecStopPost below for what failed.
RestartSec=200ms
# The first start unpacks 100 MB, which takes its time on an SD card.
TimeoutStartSec=5min
# Three missed pings. They stop when the agent's loop hangs; an outage of the server does not stop
# them.
WatchdogSec=3min
# SIGTERM goes to the agent alone: it ends the running phase, runs cleanup and delivers, in this
# order, within 90 s. When the agent is killed, crashes or hands over, its job goes on.
KillMode=process
TimeoutStopSec=100s
# A test that eats all memory is killed by the kernel; that must not stop the agent.
OOMPolicy=continue
# Control groups for jobs may be made below the unit's.
Delegate=yes
# What runs on while the agent is away must not keep the next one from starting: systemd cannot start it
# in a group that hands controllers on. An agent that ends in order has seen to it itself.
ExecStopPost=-/bin/sh -c 'for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do \
  cd "$$root$$(sed -n "/^0::/{s///;s,/[.]control$$,,;p}" /proc/self/cgroup)" 2>/dev/null || continue; \
  for file in */cgroup.subtree_control cgroup.subtree_control; do \
    for one in $$(cat "$$file"); do echo "-$$one" >"$$file"; done; done; done'
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
stage "$unit" 0644 <"$work/unit"

stage "$lib/strict.conf" 0644 <<'EOF'
# For hosts whose phase scripts need neither sudo nor anything else set-uid. To use it:
#   mkdir -p /etc/systemd/system/testflinger-agent@.service.d
#   cp strict.conf /etc/systemd/system/testflinger-agent@.service.d/
#   systemctl daemon-reload
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
ProtectControlGroups=yes
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
# Not MemoryDenyWriteExecute: the runtime compiles as it runs. Not PrivateDevices and PrivateNetwork:
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

! systemd_runs || systemctl daemon-reload

say "testflinger-agent $version is installed in $root$prefix."
[ -z "$previous" ] || [ "$previous" = "$name" ] ||
  say "Running agents go on with the version that they were started with."
say "Next:"
if [ -n "$previous" ] && [ "$previous" != "$name" ] && [ -z "$agent" ]; then
  say "  systemctl reload 'testflinger-agent@*'    # jobs go on meanwhile"
  say "  journalctl -u 'testflinger-agent@*' -f"
elif [ -n "$agent" ]; then
  say "  testflinger-agent check /etc/testflinger-agent/$agent/testflinger-agent.conf"
  say "  systemctl enable --now testflinger-agent@$agent"
else
  say "  sh install.sh --agent NAME --config FILE    # example: /etc/testflinger-agent/testflinger-agent.conf.example"
  say "  systemctl enable --now testflinger-agent@NAME"
fi
