#!/bin/sh
# The init step of docker-compose.yml: first admin, join tokens, sample configuration. Does nothing the second time.
set -eu
export XDG_CONFIG_HOME=/data/config HOME=/tmp
umask 077
[ -f /data/done ] && exit 0

cacert=/control-plane/http-cert.pem
if [ ! -f /data/admin-password ]; then
  head -c 18 /dev/urandom | base64 > /data/admin-password
fi
awe4lb --cacert "$cacert" login --user admin --bootstrap-file /control-plane/bootstrap-code --password-file /data/admin-password
for node in node-1 node-2; do
  awe4lb token join -o json | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' > "/data/$node.token"
done

# The sample's backends are on this host when script/run applies it; here they are the service `backends`.
sed 's/"127\.0\.0\.1:17/"backends:17/' /deploy/sample.yaml > /data/sample/sample.yaml
awe4lb apply /data/sample/sample.yaml
touch /data/done
echo "console: https://localhost:7070   login: admin $(cat /data/admin-password)"
