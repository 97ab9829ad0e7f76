//! The panels of the view: queues and pools, tenants, nodes as rows of cores, and what has happened.
use crate::story::LINES;
use crate::story::world::{World, cpu_list};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use std::collections::BTreeMap;
use std::time::Duration;

const COLOURS: [Color; 2] = [Color::Cyan, Color::Magenta];
const FREE: Color = Color::DarkGray;

/// Draws everything.
pub fn all(frame: &mut Frame<'_>, world: &World, log: &[String], elapsed: Duration) {
    let nodes = u16::try_from(world.topologies.len()).unwrap_or(u16::MAX).saturating_add(2).max(3);
    let told = u16::try_from(log.len()).unwrap_or(u16::MAX).saturating_add(2);
    let [title, pools, tenants, cores, log_area] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Length(nodes),
        Constraint::Min(told),
    ])
    .areas(frame.area());
    let text = format!(
        " Fairlead  {:>5.1} s   {} objects seen   q or Ctrl-C ends everything",
        elapsed.as_secs_f64(),
        world.events
    );
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD)), title);
    frame.render_widget(pool_table(world), pools);
    frame.render_widget(tenant_table(world), tenants);
    node_rows(frame, world, cores);
    let lines: Vec<Line<'_>> = log.iter().map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" milestones ")), log_area);
}

fn header(titles: &[&'static str]) -> Row<'static> {
    Row::new(titles.iter().map(|title| Cell::from(*title))).style(Style::new().add_modifier(Modifier::BOLD))
}

fn pool_table(world: &World) -> Table<'static> {
    let rows = LINES.iter().zip(COLOURS).map(|(line, colour)| {
        let pool = format!("{}/{}", line.namespace, line.app);
        let queue = world.queues.get(line.stream).copied().unwrap_or_default();
        let wanted = world.pools.get(&pool).and_then(|p| p.status.as_ref()).and_then(|s| s.wanted_replicas);
        let limited = world.pool_condition(&pool, fairlead_crds::keys::condition::LIMITED_BY_QUOTA);
        let cells = [
            pool.clone(),
            queue.lag.to_string(),
            queue.pending.to_string(),
            wanted.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            world.ordered(&pool).to_string(),
            world.ready(line.namespace, line.app).len().to_string(),
            limited.filter(|(status, _)| status == "True").map(|(_, reason)| reason).unwrap_or_default(),
        ];
        Row::new(cells).style(Style::new().fg(colour))
    });
    let widths = [22, 9, 9, 9, 9, 9, 24].map(Constraint::Length);
    Table::new(rows, widths)
        .header(header(&["pool", "queue", "in work", "wanted", "ordered", "ready", "limited"]))
        .block(Block::bordered().title(" queues and pools "))
}

fn tenant_table(world: &World) -> Table<'static> {
    let rows = LINES.iter().zip(COLOURS).map(|(line, colour)| {
        let tenant = world.quotas.values().find(|q| q.spec.namespaces.iter().any(|n| n == line.namespace));
        let status = tenant.and_then(|q| q.status.as_ref());
        let cells = [
            tenant.and_then(|q| q.metadata.name.clone()).unwrap_or_default(),
            tenant.map(|q| q.spec.weight.to_string()).unwrap_or_default(),
            world.released(line.namespace).to_string(),
            tenant.and_then(|q| q.spec.concurrency.as_ref()).map(|c| c.hard.to_string()).unwrap_or_default(),
            status.map(|s| format!("{} %", s.dominant_share_percent)).unwrap_or_default(),
            status.map(|s| format!("{} %", s.entitled_share_percent)).unwrap_or_default(),
            format!("{:>4} {}", world.waiting(line.namespace), "▪".repeat(world.waiting(line.namespace).min(60))),
        ];
        Row::new(cells).style(Style::new().fg(colour))
    });
    let widths = [22, 9, 9, 9, 9, 9, 66].map(Constraint::Length);
    Table::new(rows, widths)
        .header(header(&["tenant", "weight", "released", "hard", "share", "entitled", "waiting line"]))
        .block(Block::bordered().title(" tenants "))
}

/// One row a node, one cell a core; gaps stand between NUMA nodes.
fn node_rows(frame: &mut Frame<'_>, world: &World, area: Rect) {
    let rows: Vec<Line<'_>> = world.topologies.values().map(|topology| node_row(world, topology)).collect();
    frame.render_widget(
        Paragraph::new(rows).block(Block::bordered().title(" nodes: one cell a core, coloured by tenant ")),
        area,
    );
}

fn node_row(world: &World, topology: &fairlead_crds::NodeTopology) -> Line<'static> {
    let name = topology.metadata.name.clone().unwrap_or_default();
    let mut owner: BTreeMap<u32, usize> = BTreeMap::new();
    for reservation in world.placements.get(&name).into_iter().flat_map(|p| &p.spec.reservations) {
        let tenant = LINES.iter().position(|line| line.namespace == reservation.namespace).unwrap_or(0);
        owner.extend(cpu_list(&reservation.cpus).into_iter().map(|cpu| (cpu, tenant)));
    }
    let mut spans = vec![Span::raw(format!("{name:<16}"))];
    for numa in &topology.spec.numa_nodes {
        let cpus = cpu_list(&numa.cpus);
        for core in &topology.spec.cores {
            let threads = cpu_list(&core.cpus);
            if threads.first().is_some_and(|first| cpus.contains(first)) {
                let holder = threads.iter().find_map(|cpu| owner.get(cpu));
                let colour = holder.and_then(|tenant| COLOURS.get(*tenant)).copied().unwrap_or(FREE);
                spans.push(Span::styled(if holder.is_some() { "█" } else { "·" }, Style::new().fg(colour)));
            }
        }
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    #[test]
    fn cores_are_drawn_by_owner() {
        let mut world = World::default();
        let topology = serde_json::from_value(json!({
            "source": "Synthetic", "packages": [{ "id": 0, "cpus": "0-3" }],
            "numaNodes": [{ "id": 0, "cpus": "0-1", "memoryBytes": 1 }, { "id": 1, "cpus": "2-3", "memoryBytes": 1 }],
            "cores": (0..4).map(|i| json!({ "id": i, "cpus": i.to_string() })).collect::<Vec<_>>(),
        }))
        .unwrap();
        world.topologies.insert("n1".into(), fairlead_crds::NodeTopology::new("n1", topology));
        let spec =
            serde_json::from_value(json!({ "reservations": [{ "podUID": "a", "namespace": "globex-prod", "name": "a",
            "reservedAt": "2026-01-01T00:00:00Z", "cpus": "2", "containers": [] }] }))
            .unwrap();
        world.placement(fairlead_crds::NodePlacement::new("n1", spec));
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|frame| all(frame, &world, &["✓ quiet".into()], Duration::from_secs(1))).unwrap();
        let text = terminal.backend().to_string();
        assert!(text.contains("n1              ·· █· "), "{text}");
        assert!(text.contains("✓ quiet"), "{text}");
    }
}
