#!/bin/sh
# Builds each overlay and checks it: against the schemas of three Kubernetes versions, unknown
# fields refused, and by checkov. Run it with `make k8s`.
set -eu
cd "$(dirname "$0")/../.."

# The one of `make dev-install`, where the machine has none.
PATH=$PATH:$PWD/.venv/bin
command -v kubectl >/dev/null || { echo "k8s: skipped, kubectl is not installed"; exit 0; }

# checkov pins much of what we pin otherwise, so that it has an environment of its own.
checkov=build/checkov-venv/bin/checkov
if [ ! -x "$checkov" ]; then
	.venv/bin/python -m venv build/checkov-venv
	build/checkov-venv/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30
fi

# What is not followed, and why:
#   CKV_K8S_11  processors are not limited: throttling would only make waiting calls late
#   CKV_K8S_15  a tag of ours never changes, and a node that has it starts without the registry
#   CKV_K8S_35  settings come from variables alone; the pods' logs and traces never show them
#   CKV_K8S_40  the images of PostgreSQL and Valkey own their files as user 999
#   CKV_K8S_43  digests are known to who pushes the images: `kustomize edit set image` sets them
exceptions=CKV_K8S_11,CKV_K8S_15,CKV_K8S_35,CKV_K8S_43

mkdir -p build/k8s
for overlay in dev prod gpu jobs; do
	built=build/k8s/$overlay.yaml
	kubectl kustomize "deploy/k8s/$overlay" >"$built"
	for version in 1.32 1.34 1.36; do
		# Kinds of operators (Certificate, Cluster) have no schema there; it says so and goes on.
		# tests/unit/test_k8s_operators.py checks their structure.
		.venv/bin/kubernetes-validate --strict --quiet -k "$version" "$built"
		echo "k8s: $overlay is valid in Kubernetes $version"
	done
	skipped=$exceptions
	[ "$overlay" = jobs ] || skipped=$skipped,CKV_K8S_40
	"$checkov" --file "$built" --framework kubernetes --compact --quiet \
		--skip-download --skip-check "$skipped"
	echo "k8s: checkov finds nothing in $overlay"
done
