#!/usr/bin/env bash
# Cluster-scoped init script: MLflow on this cluster tracks and registers in an Azure Machine Learning workspace.
#
# What to link to comes from the cluster's environment variables (databricks.yml sets them):
#   AZUREML_LINK               on, or off to change nothing
#   AZUREML_SUBSCRIPTION_ID, AZUREML_RESOURCE_GROUP, AZUREML_WORKSPACE_NAME, AZUREML_REGION
#   AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET    the service principal that logs in
# The secret stays in the environment, where Databricks puts it from a secret scope; it is in no file and no output.
#
# A half-configured link fails the start of the cluster and names the variable: runs that silently land in another
# workspace are worse than no cluster. PENGUINS_ROOT is put in front of every path, for tests.
set -euo pipefail

readonly ROOT="${PENGUINS_ROOT:-}"
readonly CONFIG="$ROOT/databricks/driver/.azureml/config.json"
readonly SPARK_ENV="$ROOT/databricks/spark/conf/spark-env.sh"
readonly PIP="$ROOT/databricks/python/bin/pip"
# The newest MLflow that the plugin works with, too: a library installed later would bring a newer one.
readonly PLUGIN="azureml-mlflow==1.62.0.post6"
readonly MLFLOW="mlflow==3.15.0"
readonly BEGIN="# >>> penguins: Azure Machine Learning >>>"
readonly END="# <<< penguins: Azure Machine Learning <<<"

refuse() {
    echo "azureml_link: $1" >&2
    exit 1
}

# require NAME PATTERN WHAT: the variable is set, resolved and well-formed. Never shows the value: it may be the secret.
require() {
    local value="${!1:-}"
    [[ -n $value ]] || refuse "$1 is not set: $3 is missing."
    [[ $value != *'{{'* ]] || refuse "$1 is a reference to a secret that was not resolved: check the scope and the key."
    [[ $value =~ ^$2$ ]] || refuse "$1 is malformed: it must be $3."
}

# replace FILE: put standard input in the file's place, whole or not at all. The file keeps its owner, its mode and the
# links that lead to it; a new one is its owner's alone.
replace() {
    local file new
    mkdir -p "$(dirname "$1")"
    file="$(readlink -f "$1")" || refuse "$1 leads to a place that isn't there."
    new="$(mktemp "$file.XXXXXX")"
    if ! { { [[ ! -e $file ]] || cp -p "$file" "$new"; } && cat >"$new" && mv -f "$new" "$file"; }; then
        rm -f "$new"
        refuse "$1 could not be written."
    fi
}

# without_block FILE: its lines without the block of an earlier start. A block that begins and doesn't end, which something
# else has left behind, loses that line only.
without_block() {
    [[ ! -e $1 ]] || awk -v begin="$BEGIN" -v end="$END" '
        $0 == begin {printf "%s", held; held = ""; inside = 1; next}
        $0 == end && inside {held = ""; inside = 0; next}
        inside {held = held $0 "\n"; next}
        {print}
        END {printf "%s", held}
    ' "$1"
}

case "${AZUREML_LINK:-}" in
off)
    echo "azureml_link: AZUREML_LINK is off, so MLflow on this cluster stays as it is."
    exit 0
    ;;
on) ;;
*) refuse "AZUREML_LINK is neither on nor off: set one of them." ;;
esac

readonly GUID='[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}'
require AZUREML_SUBSCRIPTION_ID "$GUID" "the id of a subscription, 8-4-4-4-12 hexadecimal digits"
require AZUREML_RESOURCE_GROUP '[-_.()A-Za-z0-9]{1,90}' "the name of a resource group"
require AZUREML_WORKSPACE_NAME '[A-Za-z0-9][-_A-Za-z0-9]{1,32}' "the name of a workspace"
require AZUREML_REGION '[a-z0-9]+' "a region in its short form, such as westeurope"
require AZURE_TENANT_ID "$GUID" "the id of a tenant, 8-4-4-4-12 hexadecimal digits"
require AZURE_CLIENT_ID "$GUID" "the id of a service principal, 8-4-4-4-12 hexadecimal digits"
# A line's end is what `echo` adds when somebody puts a secret into its scope.
require AZURE_CLIENT_SECRET '[^[:cntrl:][:space:]]([^[:cntrl:]]*[^[:cntrl:][:space:]])?' \
    "the service principal's secret, one line without blanks around it"

uri="azureml://$AZUREML_REGION.api.azureml.ms/mlflow/v1.0/subscriptions/$AZUREML_SUBSCRIPTION_ID"
uri+="/resourceGroups/$AZUREML_RESOURCE_GROUP/providers/Microsoft.MachineLearningServices/workspaces/$AZUREML_WORKSPACE_NAME"
block="$(
    echo "$BEGIN"
    # Both: models would otherwise go to Unity Catalog, the default registry of a cluster.
    printf 'export MLFLOW_TRACKING_URI=%q\n' "$uri"
    printf 'export MLFLOW_REGISTRY_URI=%q\n' "$uri"
    # Without these the plugin asks for a browser, and looks half a minute for the cloud it is in.
    echo 'export AZURE_TOKEN_CREDENTIALS=EnvironmentCredential'
    echo 'export AZUREML_CURRENT_CLOUD=AzureCloud'
    echo "$END"
)"
# The new block at the end; read before anything is written.
settings="$(without_block "$SPARK_ENV" && echo "$block")" || refuse "$SPARK_ENV could not be read."

"$PIP" install --quiet "$PLUGIN" "$MLFLOW" || refuse "$PLUGIN and $MLFLOW could not be installed: see the lines above."

# The values can be put between quotes as they are: what is allowed above has no quote, backslash or control character.
replace "$CONFIG" <<JSON
{
    "subscription_id": "$AZUREML_SUBSCRIPTION_ID",
    "resource_group": "$AZUREML_RESOURCE_GROUP",
    "workspace_name": "$AZUREML_WORKSPACE_NAME"
}
JSON

replace "$SPARK_ENV" <<<"$settings"
echo "azureml_link: MLflow tracks and registers in the workspace $AZUREML_WORKSPACE_NAME."
