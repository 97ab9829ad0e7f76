//! Prints the CustomResourceDefinitions and the reference page as one JSON document, for `cargo xtask generate`.
use fairlead_crds::{NodePlacement, NodeTopology, TenantLedger, TenantQuota, WorkerPool};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use std::fmt::Write as _;
use std::io::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let crds = [TenantQuota::crd(), WorkerPool::crd(), NodeTopology::crd(), NodePlacement::crd(), TenantLedger::crd()];
    let documents: Vec<_> =
        crds.iter().map(|crd| serde_json::json!({ "name": crd.spec.names.plural, "crd": crd })).collect();
    let document = serde_json::json!({ "crds": documents, "reference": reference(&crds) });
    std::io::stdout().write_all(document.to_string().as_bytes())?;
    Ok(())
}

fn reference(crds: &[CustomResourceDefinition]) -> String {
    let mut page = String::from(
        "# API reference: fairlead.dev/v1alpha1\n\nGenerated from the Rust types by `cargo xtask generate`.\n",
    );
    for crd in crds {
        let names = &crd.spec.names;
        let short = names.short_names.as_deref().unwrap_or_default().join(", ");
        let _ = writeln!(page, "\n## {}\n\n{}, short name `{short}`.", names.kind, crd.spec.scope);
        let Some(schema) =
            crd.spec.versions.first().and_then(|v| v.schema.as_ref()).and_then(|s| s.open_api_v3_schema.as_ref())
        else {
            continue;
        };
        if let Some(description) = &schema.description {
            let _ = writeln!(page, "\n{}", one_line(description));
        }
        let _ = writeln!(page, "\n| field | type | meaning |\n|---|---|---|");
        for part in ["spec", "status"] {
            if let Some(inner) = schema.properties.as_ref().and_then(|p| p.get(part)) {
                rows(&mut page, part, inner, required(schema, part));
            }
        }
    }
    page
}

fn rows(page: &mut String, path: &str, schema: &JSONSchemaProps, is_required: bool) {
    let mut meaning = schema.description.as_deref().map(one_line).unwrap_or_default();
    if is_required && path.starts_with("spec.") {
        meaning.push_str(" Required.");
    }
    if let Some(default) = &schema.default {
        let _ = write!(meaning, " Default `{}`.", serde_json::to_string(&default.0).unwrap_or_default());
    }
    for rule in schema.x_kubernetes_validations.as_deref().unwrap_or_default() {
        let _ = write!(meaning, " Rule: {}.", rule.message.as_deref().unwrap_or(&rule.rule));
    }
    let _ = writeln!(page, "| `{path}` | {} | {} |", kind(schema), meaning.trim());
    if schema.type_.as_deref() == Some("array") {
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items
            && item.properties.is_some()
            && !path.ends_with("conditions")
        {
            children(page, &format!("{path}[]"), item);
        }
        return;
    }
    children(page, path, schema);
}

fn children(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    for (name, child) in schema.properties.iter().flatten() {
        rows(page, &format!("{path}.{name}"), child, required(schema, name));
    }
}

fn required(schema: &JSONSchemaProps, name: &str) -> bool {
    schema.required.iter().flatten().any(|r| r == name)
}

fn kind(schema: &JSONSchemaProps) -> String {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "quantity".into();
    }
    let base = schema.type_.clone().unwrap_or_else(|| "any".into());
    if let Some(values) = &schema.enum_ {
        let values: Vec<_> = values.iter().map(|v| v.0.to_string().replace('"', "`")).collect();
        return values.join(", ");
    }
    if let Some(JSONSchemaPropsOrBool::Schema(_)) = &schema.additional_properties {
        return "map".into();
    }
    match (schema.minimum, schema.maximum) {
        (Some(low), Some(high)) => format!("{base} {low}–{high}"),
        (Some(low), None) => format!("{base} ≥ {low}"),
        _ => base,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
