#!/bin/sh
# Turns GNOME's remote desktop on for a user, with a certificate made for it.
# Usage: enable_remote_desktop.sh USER
set -eu
user=$1
password=$(cat /usr/lib/testflinger/remote_desktop_password)
folder=$(getent passwd "$user" | cut -d: -f6)/.local/share/gnome-remote-desktop
sudo -u "$user" mkdir -p "$folder"
openssl req -new -newkey rsa:2048 -days 3650 -nodes -x509 -subj "/CN=$(hostname)" \
  -out "$folder/rdp-tls.crt" -keyout "$folder/rdp-tls.key"
chown "$user:" "$folder/rdp-tls.crt" "$folder/rdp-tls.key"
as_user() {
  sudo -u "$user" "XDG_RUNTIME_DIR=/run/user/$(id -u "$user")" dbus-run-session grdctl --headless rdp "$@"
}
as_user set-tls-cert "$folder/rdp-tls.crt"
as_user set-tls-key "$folder/rdp-tls.key"
as_user set-credentials "$user" "$password"
as_user disable-view-only
as_user enable
sudo -u "$user" "XDG_RUNTIME_DIR=/run/user/$(id -u "$user")" systemctl --user enable gnome-remote-desktop-headless.service
