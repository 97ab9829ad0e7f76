//! Reference tables from what they describe: the chart's values and its roles.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A table of all values: name, default, and the comment above each in `values.yaml`.
pub(crate) fn values_table(yaml: &str) -> Result<String> {
    let defaults: Value = serde_saphyr::from_str(yaml).context("values.yaml")?;
    let keys = keys(yaml);
    let mut out = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    let mut whole: Option<String> = None;
    for (path, comment) in &keys {
        if whole.as_ref().is_some_and(|whole| path.starts_with(&format!("{whole}."))) {
            continue;
        }
        whole = None;
        let value = path
            .split('.')
            .try_fold(&defaults, |value, key| value.get(key))
            .with_context(|| format!("values.yaml: {path}"))?;
        let inside = format!("{path}.");
        let section =
            value.is_object() && keys.iter().any(|(other, comment)| other.starts_with(&inside) && comment.is_some());
        let Some(comment) = comment else {
            if section {
                continue;
            }
            bail!("values.yaml: {path} has no comment that says what it is");
        };
        let default = if section { String::new() } else { format!("`{value}`") };
        if !section {
            whole = Some(path.clone());
        }
        writeln!(out, "| `{path}` | {default} | {} |", comment.replace('|', "\\|"))?;
    }
    Ok(out)
}

/// Every key of the file in its order, with the comment right above it.
fn keys(yaml: &str) -> Vec<(String, Option<String>)> {
    let mut out = Vec::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        if let Some((key, _)) = text.split_once(':').filter(|_| !text.starts_with('-')) {
            open.retain(|(outer, _)| *outer < indent);
            open.push((indent, key.to_owned()));
            let path = open.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            out.push((path, (!comment.is_empty()).then(|| comment.join(" "))));
        }
        comment.clear();
    }
    out
}

/// What each ServiceAccount may do, and the roles that are bound to nobody.
pub(crate) fn rbac_page(objects: &[Value]) -> Result<String> {
    let kind = |object: &Value| object["kind"].as_str().unwrap_or_default().to_owned();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut by_account: BTreeMap<String, Vec<(&Value, Option<&Value>)>> = BTreeMap::new();
    let mut bound = Vec::new();
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        let role = &binding["roleRef"];
        let wanted = (role["kind"].as_str().unwrap_or_default(), role["name"].as_str().unwrap_or_default());
        let own = objects.iter().find(|object| (kind(object).as_str(), name(object).as_str()) == wanted);
        bound.extend(own.map(|own| (kind(own), name(own))));
        for subject in binding["subjects"].as_array().context("a binding without subjects")? {
            let account = format!(
                "{} {}",
                subject["kind"].as_str().unwrap_or_default(),
                subject["name"].as_str().unwrap_or_default()
            );
            by_account.entry(account).or_default().push((binding, own));
        }
    }
    let mut out = String::new();
    for (account, roles) in &by_account {
        write!(out, "\n## {account}\n")?;
        for (binding, role) in roles {
            let scope = match binding["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("in namespace `{namespace}`"),
                None if kind(binding) == "RoleBinding" => "in the release's namespace".to_owned(),
                None => "in the whole cluster".to_owned(),
            };
            let reference = &binding["roleRef"];
            let (kind, name) =
                (reference["kind"].as_str().unwrap_or_default(), reference["name"].as_str().unwrap_or_default());
            writeln!(out, "\n{kind} `{name}`, {scope}.")?;
            match role {
                Some(role) => rules(&mut out, role)?,
                None => writeln!(out, "It is Kubernetes' own.")?,
            }
        }
    }
    let free = objects.iter().filter(|object| matches!(kind(object).as_str(), "ClusterRole" | "Role"));
    for role in free.filter(|role| !bound.contains(&(kind(role), name(role)))) {
        writeln!(out, "\n## {} {} (bound by you, or aggregated)\n", kind(role), name(role))?;
        rules(&mut out, role)?;
    }
    Ok(out)
}

fn rules(out: &mut String, role: &Value) -> Result<()> {
    writeln!(out, "\n| API group | resources | names | verbs |\n|---|---|---|---|")?;
    for rule in role["rules"].as_array().into_iter().flatten() {
        let list = |key: &str| {
            let items = rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            items.map(|item| if item.is_empty() { "core" } else { item }).collect::<Vec<_>>().join(", ")
        };
        let resources = if rule["nonResourceURLs"].is_array() { list("nonResourceURLs") } else { list("resources") };
        writeln!(out, "| {} | {resources} | {} | {} |", list("apiGroups"), list("resourceNames"), list("verbs"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_with_their_comments_in_order() {
        let yaml = "# Title.\n\n# Logs of all.\nlogging:\n  # json or text.\n  format: json\n# What it\n# may use.\nresources:\n  requests: { cpu: 1 }\n";
        let table = values_table(yaml).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| `logging` |  | Logs of all. |",
                "| `logging.format` | `\"json\"` | json or text. |",
                "| `resources` | `{\"requests\":{\"cpu\":1}}` | What it may use. |",
            ]
        );
        assert!(values_table("a: 1\n").is_err());
    }

    #[test]
    fn roles_under_the_accounts_that_have_them() {
        let objects = [
            json!({ "kind": "ClusterRole", "metadata": { "name": "r" }, "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }] }),
            json!({ "kind": "ClusterRoleBinding", "metadata": { "name": "b" }, "roleRef": { "kind": "ClusterRole", "name": "r" },
                "subjects": [{ "kind": "ServiceAccount", "name": "agent" }] }),
            json!({ "kind": "ClusterRole", "metadata": { "name": "view" }, "rules": [] }),
        ];
        let page = rbac_page(&objects).unwrap();
        assert!(
            page.contains("## ServiceAccount agent\n\nClusterRole `r`, in the whole cluster.\n\n| API group"),
            "{page}"
        );
        assert!(page.contains("| core | pods |  | get |"), "{page}");
        assert!(page.contains("## ClusterRole view (bound by you"), "{page}");
    }
}
