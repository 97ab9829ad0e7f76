//! Taking in what happened: watch events, answers, the lease.
use super::{Answer, House};
use crate::book::PodNote;
use crate::news::{Dated, Kind, News, change};
use crate::release::desk::Desk;
use crate::release::errand::{Errand, Place, ledger_intents};
use crate::release::orphans::Touch;
use fairlead_cluster::{Change, Event as ModelEvent};
use fairlead_fairshare::protocol::{Event, Request, Standing, Uid};
use fairlead_runtime::WatchEvent;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinError;

impl House {
    pub(super) fn take(&mut self, Dated { term, news }: Dated) {
        self.dirty = true;
        if let Some(kind) = news.listed() {
            self.listed.insert(kind, term);
        }
        match news {
            News::Node(event) => self.model.apply(ModelEvent::Nodes(change(event))),
            News::Pod(event) => self.take_pods(event),
            News::Namespace(event) => {
                self.objects.namespace(event.clone());
                self.model.apply(ModelEvent::Namespaces(change(event)));
            }
            News::Quota(event) => {
                self.objects.quota(event.clone());
                self.model.apply(ModelEvent::Quotas(change(event)));
            }
            News::Topology(event) => {
                self.objects.topology(event.clone());
                self.model.apply(ModelEvent::Topologies(change(event)));
            }
            News::Pool(event) => self.objects.pool(event),
            News::Autoscaler(event) => self.objects.autoscaler(event),
        }
    }

    /// What is known of these kinds was listed in this term. A lease that lapsed and was won again says that others may
    /// have acted since, and a watch may take seconds to notice that it is blind.
    pub(super) fn saw(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.listed.get(kind).is_some_and(|term| *term >= self.term))
    }

    fn take_pods(&mut self, event: WatchEvent<Pod>) {
        match &event {
            WatchEvent::Reset(pods) => {
                let listed: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
                let gone: Vec<Uid> = self.book.uids().filter(|uid| !listed.contains(uid.as_ref())).cloned().collect();
                for uid in gone {
                    self.lose(&uid);
                }
                for pod in pods {
                    self.see(pod);
                }
                self.doubt(&listed);
            }
            WatchEvent::Apply(pod) => self.see(pod),
            WatchEvent::Delete(pod) => {
                if let Some(uid) = pod.metadata.uid.as_deref() {
                    self.lose(&uid.into());
                }
            }
        }
        self.model.apply(ModelEvent::Pods(change(event)));
    }

    /// Tenants whose protocol may know pods that the watch never showed and now never will: those of its own list that
    /// ended before this list. Whether they ended or are newer than it only another list can say. The same goes for a list
    /// under way, which may be older than this one.
    fn doubt(&mut self, listed: &BTreeSet<&str>) {
        let doubtful = |desk: &Desk| {
            let state = desk.state();
            state.is_listing() || state.is_ready() && state.pods().any(|uid| !listed.contains(uid.as_ref()))
        };
        let doubtful: Vec<String> =
            self.desks.iter().filter(|(_, desk)| doubtful(desk)).map(|(name, _)| name.clone()).collect();
        for tenant in doubtful {
            self.restart(&tenant);
        }
    }

    fn see(&mut self, pod: &Pod) {
        let note = match PodNote::of(pod) {
            Ok(note) => note,
            Err(error) => {
                tracing::error!(%error, "A pod cannot be taken into account");
                return;
            }
        };
        let (uid, view, namespace) = (note.uid.clone(), note.view, note.namespace.clone());
        if view.standing != Standing::Gated {
            self.refusals.forget(&uid);
        }
        self.book.put(note);
        self.orphans.seen(&uid, view);
        if let Some(tenant) = self.claims.get(&namespace).cloned() {
            self.tell(&tenant, &Event::Observed { uid, view });
        }
    }

    fn lose(&mut self, uid: &Uid) {
        let Some(note) = self.book.remove(uid) else { return };
        self.refusals.forget(uid);
        self.orphans.gone(uid);
        if let Some(tenant) = self.claims.get(&note.namespace).cloned() {
            self.tell(&tenant, &Event::Gone { uid: uid.clone() });
        }
    }

    pub(super) fn answered(&mut self, answer: Result<Answer, JoinError>) {
        self.dirty = true;
        match answer {
            Ok(Answer::Protocol(report)) => {
                if matches!(report.event, Event::Ungated { .. }) {
                    self.turns.ended(&report.tenant);
                }
                if let Some((uid, words)) = report.refusal {
                    self.refusals.note(&uid, words, self.clock.ms());
                }
                if let Some(desk) = self.desks.get_mut(&report.tenant) {
                    for (uid, place) in report.places {
                        desk.place(uid, place);
                    }
                }
                if let Event::Touched { uid, result } = &report.event {
                    self.orphans.touched(uid, *result);
                }
                self.tell(&report.tenant, &report.event);
                if let (Event::LedgerRead { .. }, Some(desk)) = (&report.event, self.desks.get_mut(&report.tenant)) {
                    desk.find_strays();
                }
                self.settle_strays(&report.tenant);
            }
            Ok(Answer::Told(uid, written, view)) => {
                self.telling.answered(&uid, written, self.clock.ms());
                // The release that may follow needs the version of now, and not only when the watch brings it.
                let namespace = self.book.get(&uid).map(|note| note.namespace.clone());
                let tenant = namespace.and_then(|namespace| self.claims.get(&namespace).cloned());
                if let (Some(tenant), Some(view)) = (tenant, view) {
                    self.tell(&tenant, &Event::Observed { uid, view });
                }
            }
            Ok(Answer::Stamped(uid, written)) => self.stamping.ended(&uid, written, self.clock.ms()),
            Err(error) => {
                // Some request will never be answered: start over, which the protocol is made for.
                tracing::error!(%error, "An errand died; taking over anew");
                self.orphans.restart();
                self.restart_all();
            }
        }
    }

    pub(super) fn lease(&mut self, term: Option<u64>) {
        let (leading, term) = (term.is_some(), term.unwrap_or(self.term));
        if (leading, term) == (self.leading, self.term) {
            return;
        }
        self.dirty = true;
        (self.leading, self.term) = (leading, term);
        let tenants: Vec<String> = self.desks.keys().cloned().collect();
        // The pass that first sees the cluster in this term tells them to lead.
        for tenant in tenants {
            self.tell(&tenant, &Event::StepDown);
        }
    }

    fn restart_all(&mut self) {
        let tenants: Vec<String> = self.desks.keys().cloned().collect();
        for tenant in tenants {
            self.restart(&tenant);
        }
    }

    pub(super) fn restart(&mut self, tenant: &str) {
        self.tell(tenant, &Event::StepDown);
        if self.leading && self.sighted() {
            self.tell(tenant, &Event::Lead);
        }
    }

    pub(super) fn tick(&mut self) {
        let tenants: Vec<String> = self.desks.keys().cloned().collect();
        for tenant in tenants {
            self.tell(&tenant, &Event::Tick);
            if let Some(desk) = self.desks.get_mut(&tenant) {
                desk.tidy();
            }
            self.settle_strays(&tenant);
        }
        self.touch_orphans();
        // A touch for a tenant that is gone has a lane, too, for as long as it takes.
        let (desks, orphans) = (&self.desks, &self.orphans);
        self.courier.lanes().retain(|tenant| desks.contains_key(tenant) || orphans.are_of(tenant));
        self.turns.tick();
        self.send_due();
    }

    fn settle_strays(&mut self, tenant: &str) {
        let Some(desk) = self.desks.get_mut(tenant).filter(|desk| !desk.strays.is_empty()) else { return };
        let (cancel, leave) = desk.settle_strays();
        if !cancel.is_empty() {
            self.tell(tenant, &Event::Cancel { uids: cancel });
        }
        for uid in leave {
            self.tell(tenant, &Event::Gone { uid });
        }
    }

    /// Who does not lead leaves them to who does.
    pub(super) fn touch_orphans(&mut self) {
        if self.leading {
            for Touch { tenant, uid, place } in self.orphans.due() {
                self.send(Errand::Touch { tenant, uid, place: Some(place), epoch: 0 });
            }
        }
    }

    /// Tells a tenant's protocol what happened and sends out what it asks for.
    pub(super) fn tell(&mut self, tenant: &str, event: &Event) {
        if let Some(desk) = self.desks.get_mut(tenant) {
            for request in desk.tell(event) {
                match self.errand(tenant, request) {
                    Some(errand @ Errand::Ungate { .. }) => self.turns.hold(tenant, errand),
                    Some(errand) => self.send(errand),
                    None => {}
                }
            }
        }
        if matches!(event, Event::StepDown) {
            self.turns.forget(tenant);
        }
        self.send_due();
    }

    /// Sends the gate removals whose turn has come.
    fn send_due(&mut self) {
        for errand in self.turns.due() {
            self.send(errand);
        }
    }

    fn send(&mut self, errand: Errand) {
        let courier = self.courier.clone();
        self.answers.spawn(async move { Answer::Protocol(courier.carry(errand).await) });
    }

    fn errand(&self, tenant: &str, request: Request) -> Option<Errand> {
        let desk = self.desks.get(tenant)?;
        let place = |uid: &str| {
            let noted = self.book.get(uid);
            let noted = noted.map(|note| Place { namespace: note.namespace.clone(), name: note.name.clone() });
            noted.or_else(|| desk.placed(uid).cloned())
        };
        let tenant = tenant.to_owned();
        Some(match request {
            Request::ReadLedger { round } => Errand::ReadLedger { round, tenant },
            Request::WriteLedger { round, expect, epoch, intents } => {
                let places: BTreeMap<Uid, Place> =
                    intents.iter().filter_map(|intent| Some((intent.uid.clone(), place(&intent.uid)?))).collect();
                let intents = ledger_intents(&intents, &places);
                Errand::WriteLedger { round, owner: desk.owner.clone(), expect, epoch, intents }
            }
            Request::ListPods { round } => {
                let (namespaces, strays) = (desk.namespaces.clone(), desk.strays.clone());
                Errand::ListPods { round, tenant, namespaces, strays }
            }
            Request::Ungate { uid, version, epoch } => {
                Errand::Ungate { tenant, place: place(&uid), uid, version, epoch }
            }
            Request::Touch { uid } => Errand::Touch { tenant, place: place(&uid), uid, epoch: desk.state().epoch() },
        })
    }
}

/// Empty lists of NodePlacements and WorkerPools: the order of release depends on neither, so they are not fed to the
/// model, and it is not to wait for them.
#[must_use]
pub fn unwatched() -> [ModelEvent; 2] {
    [ModelEvent::Placements(Change::Reset(Vec::new())), ModelEvent::Pools(Change::Reset(Vec::new()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::OperatorMetrics;
    use crate::release::carry::Courier;
    use fairlead_cluster::Model;
    use fairlead_fairshare::protocol::PodView;
    use fairlead_runtime::{LeaseState, Metrics};
    use kube::client::Body;
    use std::convert::Infallible;

    /// A house that leads, whose API server never answers.
    fn house() -> House {
        let silent = tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, Infallible>>()
        });
        let metrics = OperatorMetrics::register(&mut Metrics::new("operator"));
        let (_, lease) = tokio::sync::watch::channel(LeaseState { leading: false, term: 1, until: None });
        let client = kube::Client::new(silent, "default");
        let courier = Courier::new(client, "op-0".into(), lease, 2, metrics.clone());
        let (mut house, _) = House::new(Model::new("fairlead-system"), courier, metrics, 20);
        house.leading = true;
        house.orphans.take("gone", "u".into(), Place { namespace: "b".into(), name: "p".into() }, 7);
        house
    }

    #[tokio::test]
    async fn an_orphan_is_touched_again_when_an_errand_died() {
        let mut house = house();
        house.tick();
        assert!(house.orphans.due().is_empty(), "a touch is under way");
        let died = tokio::spawn(async { std::future::pending::<Answer>().await });
        died.abort();
        house.answered(Err(died.await.unwrap_err()));
        assert_eq!(house.orphans.due().len(), 1);
    }

    #[tokio::test]
    async fn a_tenant_that_is_gone_has_no_lane_once_its_last_removal_is_settled() {
        let mut house = house();
        house.tick();
        // As the touch does, that was sent.
        drop(house.courier.lanes().of("gone"));
        house.tick();
        assert_eq!(house.courier.lanes().tenants(), ["gone"]);
        house.orphans.seen(&"u".into(), PodView { version: 8, standing: Standing::Gated });
        house.tick();
        assert!(house.courier.lanes().tenants().is_empty());
    }
}
