//! One pass: snapshot, desks in step with the tenants, plan, wants, conditions, and the view for everybody else.
use super::{Answer, House};
use crate::book::{PodNote, Told};
use crate::clock::time_of;
use crate::metrics::Stage;
use crate::news::Kind;
use crate::release::attempts::Written;
use crate::release::conditions::ToTell;
use crate::release::desk::Desk;
use crate::release::errand::Place;
use crate::release::input::{self, Known, Table};
use crate::release::is_away;
use crate::release::patch::{self, LedgerOwner};
use crate::view::{TenantFacts, View};
use fairlead_cluster::Snapshot;
use fairlead_crds::keys;
use fairlead_fairshare::protocol::{Event, Failure, PodView, Standing, Uid};
use fairlead_fairshare::{ReleasePlan, WaitReason, Waiting, plan_within};
use fairlead_runtime::ApiError;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks at which conditions to write.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Conditions and stamps under way at once: while pods are released, and otherwise.
const TELLING_BESIDE_RELEASE: usize = 4;
const TELLING: usize = 16;

impl House {
    pub(super) fn pass(&mut self) {
        self.dirty = false;
        self.passed_at = Instant::now();
        let snapshot = self.model.snapshot();
        let synced = self.sighted();
        self.staff(&snapshot, synced);
        let lanes = self.courier.lanes();
        let at = Known {
            book: &self.book,
            refusals: &self.refusals,
            orphans: &self.orphans,
            lanes,
            now_ms: self.clock.ms(),
        };
        let Table { input, most, mut facts } = input::of(&snapshot, &mut self.desks, at, self.window_percent);
        let mut plan = if self.leading && synced {
            let _timer = self.metrics.stage(Stage::Plan);
            plan_within(&input, &most)
        } else {
            ReleasePlan::default()
        };
        if self.leading && synced {
            plan.waiting.extend(input::refused(&self.desks, &self.claims, &facts, at));
            plan.waiting.extend(input::stalled(&snapshot, &facts, &self.book));
        }
        input::complete(&mut facts, &input, &plan);
        self.want(&plan, &mut facts);
        self.cancel(&facts);
        if self.leading && synced && self.told_at.elapsed() >= TELL_EVERY {
            self.told_at = Instant::now();
            self.tell_pods(&snapshot, &plan, &facts);
            self.stamp(&facts);
        }
        let view = View {
            leading: self.leading,
            term: self.term,
            synced,
            rivals_synced: self.saw(&[Kind::Pool, Kind::Autoscaler]),
            snapshot,
            total: input.total,
            tenants: facts,
            waiting: Arc::new(plan.waiting),
            pods: self.book.by_namespace().clone(),
            objects: self.objects.clone(),
        };
        self.view.send_replace(Arc::new(view));
    }

    /// All that releases depend on was listed, and in this term.
    pub(super) fn sighted(&mut self) -> bool {
        let kinds = [Kind::Node, Kind::Pod, Kind::Namespace, Kind::Quota, Kind::Topology];
        self.model.snapshot().synced && self.saw(&kinds)
    }

    /// A desk for each tenant, and none for those that are gone. A tenant whose namespaces changed starts over: its list
    /// must cover exactly the namespaces that it has now.
    fn staff(&mut self, snapshot: &Snapshot, synced: bool) {
        let mut claims = BTreeMap::new();
        let mut anew = Vec::new();
        for tenant in snapshot.tenants.iter() {
            let name = &tenant.name;
            claims.extend(tenant.namespaces.iter().map(|namespace| (namespace.clone(), name.clone())));
            let quota = self.objects.quotas.get(name).and_then(|quota| quota.metadata.uid.clone());
            let owner = LedgerOwner { name: name.clone(), uid: quota.unwrap_or_default() };
            match self.desks.get(name) {
                Some(desk) if desk.namespaces == tenant.namespaces && desk.owner == owner => {}
                _ => anew.push((owner, tenant.namespaces.clone())),
            }
        }
        let gone: Vec<String> =
            self.desks.keys().filter(|name| !snapshot.tenants.contains_key(name)).cloned().collect();
        for name in gone {
            self.dismiss(&name);
        }
        self.claims = claims;
        for (owner, namespaces) in anew {
            let name = owner.name.clone();
            match self.desks.get_mut(&name) {
                // The state is kept: its rounds tell late answers from new ones.
                Some(known) => {
                    known.owner = owner;
                    known.namespaces = namespaces;
                }
                None => {
                    self.desks.insert(name.clone(), Desk::new(owner, namespaces, self.round));
                }
            }
            if synced {
                self.restart(&name);
            }
        }
        if synced && self.leading {
            let idle: Vec<String> = self
                .desks
                .iter()
                .filter(|(_, desk)| !desk.state().is_leading())
                .map(|(name, _)| name.clone())
                .collect();
            for tenant in idle {
                self.tell(&tenant, &Event::Lead);
            }
        }
    }

    /// The tenant is gone. What it has under way may still come true, in a namespace that is somebody else's by now.
    fn dismiss(&mut self, tenant: &str) {
        self.turns.forget(tenant);
        let Some(desk) = self.desks.remove(tenant) else { return };
        self.round = self.round.max(desk.state().round());
        for (uid, version) in desk.state().open() {
            if let Some(note) = self.book.get(uid) {
                let place = Place { namespace: note.namespace.clone(), name: note.name.clone() };
                self.orphans.take(tenant, uid.clone(), place, version);
            }
        }
        self.touch_orphans();
    }

    fn want(&mut self, plan: &ReleasePlan, facts: &mut BTreeMap<String, TenantFacts>) {
        let mut wants: BTreeMap<&str, Vec<Uid>> = BTreeMap::new();
        for release in &plan.release {
            // A condition is being written: its answer wakes the next pass, which finds the new version.
            if !self.telling.is_writing(&release.uid) {
                wants.entry(&release.tenant).or_default().push(release.uid.as_str().into());
                self.turns.decided(&release.tenant);
            }
        }
        for (tenant, uids) in wants {
            if let Some(facts) = facts.get_mut(tenant) {
                facts.waiting = facts.waiting.saturating_sub(uids.len());
                facts.in_flight += uids.len();
            }
            self.tell(tenant, &Event::Want { uids });
        }
        for (tenant, desk) in &self.desks {
            // Nobody waits for the turn of a tenant whose writes fail.
            let open = if self.courier.lanes().falters(tenant) { 0 } else { desk.state().in_flight() };
            self.turns.stands(tenant, open);
        }
    }

    /// A limit was cut below what counts: what is on its way out and can still be held back is held back.
    fn cancel(&mut self, facts: &BTreeMap<String, TenantFacts>) {
        let mut over: Vec<(String, Vec<Uid>)> = Vec::new();
        for (tenant, facts) in facts.iter().filter(|(_, facts)| facts.ready && !facts.releasing.is_empty()) {
            let Some(desk) = self.desks.get(tenant) else { continue };
            let cut = |name: &String| facts.hard.get(name).is_some_and(|hard| facts.used.get(name) > Some(hard));
            let asks = |uid: &Uid| self.book.get(uid).is_some_and(|note| note.request.keys().any(cut));
            let uids = facts.releasing.iter().filter(|uid| !desk.state().is_stuck(uid) && asks(uid)).cloned().collect();
            over.push((tenant.clone(), uids));
        }
        for (tenant, uids) in over.into_iter().filter(|(_, uids)| !uids.is_empty()) {
            tracing::info!(tenant, pods = uids.len(), "The limit was cut: holding back releases");
            self.tell(&tenant, &Event::Cancel { uids });
        }
    }

    /// Why each pod waits. Pods behind the gate of nobody wait too: for somebody to say whose they are.
    fn verdicts(
        &self,
        snapshot: &Snapshot,
        plan: &ReleasePlan,
        facts: &BTreeMap<String, TenantFacts>,
    ) -> BTreeMap<Uid, Told> {
        // A takeover, or an outage, is over in a moment: who has a reason keeps it. One that does not end by itself is
        // told to all.
        let lasts = |tenant: &String| {
            let trouble = facts.get(tenant).and_then(|facts| facts.trouble);
            trouble.is_some_and(|trouble| trouble.failure == Failure::Forbidden)
        };
        let worth = |waiting: &&Waiting| {
            let keeps = || self.book.get(&waiting.uid).is_some_and(|note| note.told.is_some());
            waiting.reason != WaitReason::ReleaseStalled || lasts(&waiting.tenant) || !keeps()
        };
        let told = |reason: &WaitReason| Told {
            released: false,
            reason: reason.as_str().to_owned(),
            message: reason.message(),
        };
        let mut verdicts: BTreeMap<Uid, Told> = plan
            .waiting
            .iter()
            .filter(worth)
            .map(|waiting| (waiting.uid.as_str().into(), told(&waiting.reason)))
            .collect();
        for (namespace, pods) in self.book.by_namespace() {
            let fault = match self.claims.get(namespace).and_then(|name| snapshot.tenants.get(name)) {
                Some(tenant) => tenant.error.clone(),
                None => Some(format!(
                    "namespace {namespace} belongs to no TenantQuota: name it in one, or remove the gates with kubectl fairlead drain"
                )),
            };
            let Some(fault) = fault else { continue };
            let verdict = told(&WaitReason::Misconfigured { fault });
            let gated = pods.values().filter(|note| note.view.standing == Standing::Gated);
            verdicts.extend(gated.map(|note| (note.uid.clone(), verdict.clone())));
        }
        verdicts
    }

    fn tell_pods(&mut self, snapshot: &Snapshot, plan: &ReleasePlan, facts: &BTreeMap<String, TenantFacts>) {
        let verdicts = self.verdicts(snapshot, plan, facts);
        let releasing = self.desks.values().any(|desk| desk.state().moving() > 0);
        let most = if releasing { TELLING_BESIDE_RELEASE } else { TELLING };
        let (desks, claims) = (&self.desks, &self.claims);
        let in_release = |note: &PodNote| {
            let desk = claims.get(&note.namespace).and_then(|tenant| desks.get(tenant));
            let Some(state) = desk.map(Desk::state).filter(|_| note.view.standing == Standing::Gated) else {
                return false;
            };
            // Who is stuck may be told: that changes the pod's version, which is all that a touch wants.
            state.counts(&note.uid) && !state.is_stuck(&note.uid)
        };
        let free = most.saturating_sub(self.telling.under_way());
        let chosen = self.telling.choose(self.clock.ms(), &self.book, &verdicts, in_release, free);
        for to_tell in chosen {
            self.write_condition(to_tell);
        }
    }

    fn write_condition(&mut self, to_tell: ToTell) {
        let ToTell { uid, namespace, name, told, since } = to_tell;
        let told_to_wait = |reason: &&&str| !told.released && **reason == told.reason;
        if let Some(reason) = WaitReason::ALL.iter().find(told_to_wait) {
            self.metrics.refused(reason);
        }
        let since = since.unwrap_or_else(|| time_of(self.clock.wall_ms()));
        let body = patch::condition(&uid, told.released, &told.reason, &told.message, &since);
        let courier = self.courier.clone();
        self.answers.spawn(async move {
            let place = Place { namespace, name };
            let manager = keys::manager::POD_CONDITION;
            let written = courier.patch("write the condition of Pod", &place, manager, &body, true).await;
            let (written, view) = written_as(written, "A pod was not told why it waits");
            Answer::Told(uid, written, view)
        });
    }

    /// Pods that name our scheduler and came past the gate (the policy was away) count already; while their tenant keeps
    /// its limits they get the annotation without which the extender refuses them.
    fn stamp(&mut self, facts: &BTreeMap<String, TenantFacts>) {
        let within = |tenant: &String| {
            let facts = facts.get(tenant).filter(|facts| facts.ready)?;
            let over = facts.hard.iter().any(|(name, hard)| facts.used.get(name).is_some_and(|used| used > hard));
            (!over).then_some(facts.epoch)
        };
        let mut found = Vec::new();
        for (namespace, tenant) in &self.claims {
            let (Some(epoch), Some(pods)) = (within(tenant), self.book.by_namespace().get(namespace)) else { continue };
            let loose = pods.values().filter(|note| note.unstamped && !note.deleting);
            found.extend(loose.map(|note| (note.clone(), epoch)));
        }
        found.sort_by(|(a, _), (b, _)| (a.created_ms, &a.uid).cmp(&(b.created_ms, &b.uid)));
        self.stamping.tidy(&self.book);
        for (note, epoch) in found {
            if self.stamping.under_way() >= TELLING || !self.stamping.may_begin(&note, self.clock.ms()) {
                continue;
            }
            self.stamping.begin(&note.uid);
            let (courier, wall_ms) = (self.courier.clone(), self.clock.wall_ms());
            self.answers.spawn(async move {
                let place = Place { namespace: note.namespace.clone(), name: note.name.clone() };
                let body = patch::stamp(&note.uid, note.view.version, epoch, wall_ms);
                let manager = keys::manager::RELEASE;
                let written = courier.patch("stamp Pod", &place, manager, &body, false).await;
                Answer::Stamped(
                    note.uid.clone(),
                    written_as(written, "A pod that came past the gate was not stamped").0,
                )
            });
        }
    }
}

/// How a write on a pod ended, and the pod as it left it.
fn written_as(written: Result<Pod, ApiError>, otherwise: &'static str) -> (Written, Option<PodView>) {
    match written.map(|pod| PodNote::of(&pod)) {
        Ok(Ok(note)) => (Written::Done(note.view.version), Some(note.view)),
        Ok(Err(_)) => (Written::Refused, None),
        Err(error) => {
            if !error.is_not_found() {
                tracing::warn!(error = %error.chain(), "{otherwise}");
            }
            (if is_away(&error) { Written::Away } else { Written::Refused }, None)
        }
    }
}
