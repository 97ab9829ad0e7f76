//! What is wrong with a KubeSchedulerConfiguration that should call the extender. Rules of kube-scheduler 1.36, and what
//! the promise of cores needs beyond them.
use super::duration::milliseconds;
use serde_json::Value;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Path of the field.
    pub(super) at: String,
    /// What is wrong and what to write.
    pub(super) text: String,
}

const SCHEDULER: &str = "fairlead-scheduler";
/// The extender answers a bind within this; a scheduler that gives up earlier binds in vain.
const BIND_DEADLINE_MS: u64 = 4_000;
/// The one loop of the scheduler waits for filter and prioritize.
const TIMEOUT_MS_MAX: u64 = 30_000;
const EXTENDER_KEYS: [&str; 12] = [
    "urlPrefix",
    "filterVerb",
    "prioritizeVerb",
    "preemptVerb",
    "bindVerb",
    "weight",
    "enableHTTPS",
    "tlsConfig",
    "httpTimeout",
    "nodeCacheCapable",
    "managedResources",
    "ignorable",
];

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn note(&mut self, at: impl Into<String>, text: impl Into<String>) {
        self.0.push(Fault { at: at.into(), text: text.into() });
    }
}

/// Everything that is wrong, in the order of the file. `url_prefix` is where the extender should be called.
pub(super) fn faults(config: &Value, url_prefix: &str) -> Vec<Fault> {
    let mut faults = Faults::default();
    let kind = [("apiVersion", "kubescheduler.config.k8s.io/v1"), ("kind", "KubeSchedulerConfiguration")];
    for (key, wanted) in kind {
        if text(config, key) != wanted {
            faults.note(key, format!("must be {wanted}"));
        }
    }
    profiles(config, &mut faults);
    sampling(config, "percentageOfNodesToScore", &mut faults);
    let none = Vec::new();
    let extenders = config["extenders"].as_array().unwrap_or(&none);
    match extenders.iter().position(|extender| is_ours(extender, url_prefix)) {
        Some(index) => {
            let at = format!("extenders[{index}]");
            one(&at, extenders.get(index).unwrap_or(&Value::Null), &mut faults);
            others(extenders, index, &mut faults);
        }
        None => faults.note("extenders", format!("none calls Fairlead: one needs urlPrefix {url_prefix}")),
    }
    faults.0
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// By its address; else by the name of the chart's Service, so that a wrong address is told and not taken for another's.
fn is_ours(extender: &Value, url_prefix: &str) -> bool {
    let url = text(extender, "urlPrefix").trim_end_matches('/');
    url == url_prefix.trim_end_matches('/')
        || url.contains("fairlead-extender")
        || text(&extender["tlsConfig"], "serverName").contains("fairlead-extender")
}

fn profiles(config: &Value, faults: &mut Faults) {
    const DEFAULT: &str = "default-scheduler";
    let none = Vec::new();
    let profiles = config["profiles"].as_array().unwrap_or(&none);
    let name = |profile: &Value| match text(profile, "schedulerName") {
        "" => DEFAULT.to_owned(),
        given => given.to_owned(),
    };
    if !profiles.iter().any(|profile| name(profile) == SCHEDULER) {
        faults.note(
            "profiles",
            format!("none has schedulerName {SCHEDULER}, which pods of managed namespaces are given"),
        );
    }
    if profiles.is_empty() || profiles.iter().any(|profile| name(profile) == DEFAULT) {
        let why = format!(
            "{DEFAULT} is served by this kube-scheduler: the extender's own pods would wait for themselves, and any extender \
             ends batching for all profiles; run a second kube-scheduler for {SCHEDULER}"
        );
        faults.note("profiles", why);
    }
    for (index, profile) in profiles.iter().enumerate() {
        sampling(profile, &format!("profiles[{index}].percentageOfNodesToScore"), faults);
    }
}

fn sampling(holder: &Value, at: &str, faults: &mut Faults) {
    match &holder["percentageOfNodesToScore"] {
        Value::Null => {}
        given => match given.as_u64() {
            Some(0 | 5..=100) => {}
            Some(1..=4) => faults.note(
                at,
                "fewer nodes are shown to the extender than by kube-scheduler's own least of 5 percent: the node that fits \
                 is found late; write 0, or 100 for the best node at every try",
            ),
            _ => faults.note(at, "must be a whole number from 0 to 100"),
        },
    }
}

/// The extender that is ours.
fn one(at: &str, extender: &Value, faults: &mut Faults) {
    for key in extender.as_object().into_iter().flat_map(|fields| fields.keys()) {
        if !EXTENDER_KEYS.contains(&key.as_str()) {
            faults.note(format!("{at}.{key}"), "is no field of an extender; keys are written as in tlsConfig");
        }
    }
    for verb in ["filter", "prioritize", "preempt", "bind"] {
        let key = format!("{verb}Verb");
        if text(extender, &key) != verb {
            let without = match verb {
                "filter" => "without it pods go where no cores are free",
                "prioritize" => "without it the best fit is not preferred",
                "preempt" => "without it pods are evicted for room that does not help",
                _ => "without it no cores are reserved and none are promised",
            };
            faults.note(format!("{at}.{key}"), format!("must be {verb}: {without}"));
        }
    }
    if extender["weight"].as_u64().is_none_or(|weight| weight == 0) {
        faults.note(format!("{at}.weight"), "must be above 0, or kube-scheduler refuses prioritizeVerb");
    }
    if extender["nodeCacheCapable"] != true {
        let why = "must be true: whole Node objects cost some ten times as much for each pod, and kube-scheduler's own \
                   scores then see empty nodes";
        faults.note(format!("{at}.nodeCacheCapable"), why);
    }
    if extender["ignorable"] == true {
        let why =
            "must be false: while the extender is away pods would be bound without cores, and nobody would be told";
        faults.note(format!("{at}.ignorable"), why);
    }
    if extender["managedResources"].as_array().is_some_and(|list| !list.is_empty()) {
        let why = "must be empty: pods that ask for none of these resources would pass the extender by";
        faults.note(format!("{at}.managedResources"), why);
    }
    timeout(at, extender, faults);
    transport(at, extender, faults);
}

fn timeout(at: &str, extender: &Value, faults: &mut Faults) {
    let at = format!("{at}.httpTimeout");
    let given = match &extender["httpTimeout"] {
        Value::Null => return,
        Value::String(given) => milliseconds(given),
        _ => None,
    };
    match given {
        // 0 stands for 5 s.
        Some(0) => {}
        Some(ms) if ms <= BIND_DEADLINE_MS => {
            faults.note(at, "must be above the 4 s that the extender gives a bind (--bind-deadline-ms); write 5s");
        }
        Some(ms) if ms > TIMEOUT_MS_MAX => {
            faults.note(at, "is too long: the scheduler's one loop waits for the extender; write 5s");
        }
        Some(_) => {}
        None => faults.note(at, "is no duration; write 5s"),
    }
}

fn transport(at: &str, extender: &Value, faults: &mut Faults) {
    let url = text(extender, "urlPrefix");
    let Some((scheme, rest)) = url.split_once("://") else {
        faults.note(
            format!("{at}.urlPrefix"),
            "must be a URL such as https://fairlead-extender.fairlead-system.svc:9801",
        );
        return;
    };
    let host = host_of(rest);
    let address = host.parse::<std::net::IpAddr>().ok();
    if scheme != "https" {
        if !(host == "localhost" || address.is_some_and(|ip| ip.is_loopback())) {
            faults.note(format!("{at}.urlPrefix"), "must be https: the extender answers nobody without a certificate");
        }
        return;
    }
    let tls = &extender["tlsConfig"];
    let has = |kind: &str| ["File", "Data"].iter().any(|form| !text(tls, &format!("{kind}{form}")).is_empty());
    if tls["insecure"] == true {
        faults.note(format!("{at}.tlsConfig.insecure"), "must be false: anybody could answer for the extender");
    }
    if !has("ca") {
        let why = if extender["enableHTTPS"] == true {
            "is missing: with enableHTTPS and no authority kube-scheduler verifies nobody, and does not say so"
        } else {
            "is missing: the authority that signed the extender's certificate"
        };
        faults.note(format!("{at}.tlsConfig.caFile"), why);
    }
    for kind in ["cert", "key"] {
        if !has(kind) {
            let why = "is missing: the extender refuses a kube-scheduler without its certificate";
            faults.note(format!("{at}.tlsConfig.{kind}File"), why);
        }
    }
    if address.is_some() && text(tls, "serverName").is_empty() {
        let why = "is missing: the certificate names fairlead-extender.NAMESPACE.svc and no address";
        faults.note(format!("{at}.tlsConfig.serverName"), why);
    }
}

/// Of `host:port/path`, with an IPv6 address in brackets.
fn host_of(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((inner, _)) => inner,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

fn others(extenders: &[Value], ours: usize, faults: &mut Faults) {
    for (index, extender) in extenders.iter().enumerate().filter(|(index, _)| *index != ours) {
        if !text(extender, "bindVerb").is_empty() {
            let why = "a second extender that binds: kube-scheduler admits one, and cores are reserved by Fairlead's";
            faults.note(format!("extenders[{index}].bindVerb"), why);
        }
        if extender["nodeCacheCapable"] != true && !text(extender, "filterVerb").is_empty() {
            let why =
                "must be true: after an extender that returns Node objects kube-scheduler's scores see empty nodes";
            faults.note(format!("extenders[{index}].nodeCacheCapable"), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const URL: &str = "https://fairlead-extender.fairlead-system.svc:9801";

    fn good() -> Value {
        json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "profiles": [{ "schedulerName": "fairlead-scheduler" }],
            "extenders": [{
                "urlPrefix": URL, "filterVerb": "filter", "prioritizeVerb": "prioritize", "preemptVerb": "preempt",
                "bindVerb": "bind", "weight": 10, "enableHTTPS": true, "httpTimeout": "5s", "nodeCacheCapable": true,
                "tlsConfig": { "caFile": "/ca", "certFile": "/cert", "keyFile": "/key" },
            }],
        })
    }

    /// The paths of the faults after a change at a JSON pointer; null removes.
    fn after(pointer: &str, value: Value) -> Vec<String> {
        let mut config = good();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let holder = config.pointer_mut(parent).unwrap();
        match last.parse::<usize>() {
            Ok(_) => holder.as_array_mut().unwrap().push(value),
            Err(_) => holder[last] = value,
        }
        faults(&config, URL).into_iter().map(|fault| fault.at).collect()
    }

    #[test]
    fn a_good_one_has_no_faults() {
        assert_eq!(faults(&good(), URL), []);
        for (pointer, value) in [
            ("/percentageOfNodesToScore", json!(100)),
            ("/extenders/0/httpTimeout", json!("0")),
            ("/extenders/0/managedResources", json!([])),
            ("/extenders/0/tlsConfig/caFile", json!("x")),
            ("/extenders/1", json!({ "urlPrefix": "http://x", "prioritizeVerb": "p" })),
        ] {
            assert_eq!(after(pointer, value), [""; 0], "{pointer}");
        }
    }

    #[test]
    fn each_fault_is_named_by_its_field() {
        let cases = [
            ("/kind", json!("Pod"), "kind"),
            ("/apiVersion", json!("kubescheduler.config.k8s.io/v1beta3"), "apiVersion"),
            ("/profiles", json!([{ "schedulerName": "other" }]), "profiles"),
            ("/profiles/1", json!({ "schedulerName": "default-scheduler" }), "profiles"),
            ("/profiles/1", json!({}), "profiles"),
            ("/profiles/0/percentageOfNodesToScore", json!(101), "profiles[0].percentageOfNodesToScore"),
            ("/percentageOfNodesToScore", json!(2), "percentageOfNodesToScore"),
            ("/extenders", json!([]), "extenders"),
            ("/extenders/0/filterVerb", Value::Null, "extenders[0].filterVerb"),
            ("/extenders/0/prioritizeVerb", json!("score"), "extenders[0].prioritizeVerb"),
            ("/extenders/0/preemptVerb", Value::Null, "extenders[0].preemptVerb"),
            ("/extenders/0/bindVerb", json!(""), "extenders[0].bindVerb"),
            ("/extenders/0/weight", json!(0), "extenders[0].weight"),
            ("/extenders/0/nodeCacheCapable", Value::Null, "extenders[0].nodeCacheCapable"),
            ("/extenders/0/ignorable", json!(true), "extenders[0].ignorable"),
            ("/extenders/0/managedResources", json!([{ "name": "a/b" }]), "extenders[0].managedResources"),
            ("/extenders/0/httpTimeout", json!("4s"), "extenders[0].httpTimeout"),
            ("/extenders/0/httpTimeout", json!("2m"), "extenders[0].httpTimeout"),
            ("/extenders/0/httpTimeout", json!(5), "extenders[0].httpTimeout"),
            ("/extenders/0/httptimeout", json!("5s"), "extenders[0].httptimeout"),
            ("/extenders/0/urlPrefix", json!("http://fairlead-extender.x.svc:9801"), "extenders[0].urlPrefix"),
            ("/extenders/0/urlPrefix", json!("fairlead-extender.x.svc"), "extenders[0].urlPrefix"),
            ("/extenders/0/tlsConfig/insecure", json!(true), "extenders[0].tlsConfig.insecure"),
            ("/extenders/0/tlsConfig/caFile", Value::Null, "extenders[0].tlsConfig.caFile"),
            ("/extenders/0/tlsConfig/certFile", json!(""), "extenders[0].tlsConfig.certFile"),
            ("/extenders/0/tlsConfig/keyFile", Value::Null, "extenders[0].tlsConfig.keyFile"),
            ("/extenders/1", json!({ "bindVerb": "bind", "urlPrefix": "http://x" }), "extenders[1].bindVerb"),
            ("/extenders/1", json!({ "filterVerb": "f", "urlPrefix": "http://x" }), "extenders[1].nodeCacheCapable"),
        ];
        for (pointer, value, at) in cases {
            assert_eq!(after(pointer, value.clone()), [at], "{pointer} {value}");
        }
    }

    #[test]
    fn unverified_tls_is_called_by_its_name() {
        let mut config = good();
        config["extenders"][0]["tlsConfig"]["caFile"] = Value::Null;
        assert!(faults(&config, URL)[0].text.contains("verifies nobody"));
    }

    #[test]
    fn an_address_needs_the_name_in_the_certificate() {
        let mut config = good();
        config["extenders"][0]["urlPrefix"] = json!("https://10.0.0.7:9801");
        let at: Vec<_> = faults(&config, "https://10.0.0.7:9801/").into_iter().map(|fault| fault.at).collect();
        assert_eq!(at, ["extenders[0].tlsConfig.serverName"]);
        config["extenders"][0]["tlsConfig"]["serverName"] = json!("fairlead-extender.fairlead-system.svc");
        assert_eq!(faults(&config, URL), []);
    }

    #[test]
    fn what_is_no_configuration_at_all_is_survived() {
        for config in
            [json!(null), json!([]), json!("x"), json!({ "extenders": 7, "profiles": {} }), json!({ "extenders": [7] })]
        {
            assert!(!faults(&config, URL).is_empty());
        }
    }
}
