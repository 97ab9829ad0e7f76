//! Machines as hwloc exports them: what is read of them, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::fs;

use fairlead_discovery::{
    Discovered, DiscoveryError, Gap, HwlocSource, TopologyInput, TopologySource, XmlError, XmlSource,
};
use fairlead_topology::{CpuMask, Field, HugePages, Machine, MachineError, PciDescription};
use hwlocality::Topology;
use hwlocality::topology::export::xml::XMLExportFlags;

/// Two packages, each with a NUMA node and an L3 of two cores of two neighbouring threads.
const SMALL: &str = "pack:2 [numa(memory=64GB)] l3:1 core:2 pu:2";

const BRIDGES: &str = r#"
<object type="Bridge" gp_index="90" bridge_type="0-1" depth="0" bridge_pci="0000:[00-05]">
 <object type="Bridge" gp_index="91" bridge_type="1-1" depth="1" bridge_pci="0000:[01-05]" pci_busid="0000:00:01.0" pci_type="0604 [8086:2030] [0000:0000] 04" pci_link_speed="0.000000">
  <object type="Bridge" gp_index="92" bridge_type="1-1" depth="2" bridge_pci="0000:[02-05]" pci_busid="0000:01:00.0" pci_type="0604 [10b5:8747] [0000:0000] ca" pci_link_speed="0.000000">
   <object type="Bridge" gp_index="93" bridge_type="1-1" depth="3" bridge_pci="0000:[03-03]" pci_busid="0000:02:08.0" pci_type="0604 [10b5:8747] [0000:0000] ca" pci_link_speed="0.000000">
    <object type="PCIDev" gp_index="94" pci_busid="0000:03:00.0" pci_type="0302 [10de:2230] [10de:14e5] a1" pci_link_speed="0.000000">
     <object type="OSDev" gp_index="95" name="card1" osdev_type="1"/>
    </object>
   </object>
  </object>
 </object>
 <object type="PCIDev" gp_index="96" pci_busid="0000:00:1f.2" pci_type="0106 [8086:a182] [0000:0000] 09" pci_link_speed="0.000000">
  <object type="OSDev" gp_index="97" name="sda" osdev_type="0"/>
 </object>
 <object type="PCIDev" gp_index="98" pci_busid="0000:00:1f.4" pci_type="0c05 [8086:a1a3] [0000:0000] 09" pci_link_speed="0.000000"/>
</object>"#;

fn export(synthetic: &str) -> String {
    let topology = Topology::builder().from_synthetic(synthetic).unwrap().build().unwrap();
    topology.export_xml(XMLExportFlags::default()).unwrap().as_str().to_owned()
}

/// The small machine, with the first `from` replaced.
fn small(from: &str, to: &str) -> String {
    let text = export(SMALL);
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1)
}

fn describe(text: &str) -> Result<Discovered, DiscoveryError> {
    XmlSource::text(text).describe()
}

fn list(text: &str) -> CpuMask {
    CpuMask::parse_list(text).unwrap()
}

#[test]
fn an_export_is_the_machine_it_came_from() {
    let shapes = [SMALL, "pack:2 die:2 [numa(memory=1GB indexes=7,3,12,40)] l3:2 l2:2 core:2 pu:2", "core:3 pu:1"];
    for shape in shapes {
        let exported = describe(&export(shape)).unwrap();
        assert_eq!(exported, HwlocSource::synthetic(shape).describe().unwrap(), "{shape}");
        Machine::new(&exported.description).unwrap();
    }
}

#[test]
fn devices_have_the_locality_of_what_they_hang_on() {
    let end_of_package = "    </object>\n    <object type=\"Package\" os_index=\"1\"";
    let on_package = small(end_of_package, &format!("{BRIDGES}\n{end_of_package}"));
    let found = describe(&on_package).unwrap().description;
    let gpu = PciDescription {
        address: "0000:03:00.0".into(),
        class: 0x0302,
        vendor: 0x10de,
        device: 0x2230,
        names: vec!["card1".into()],
        cpus: list("0-3"),
        switch: Some("0000:01:00.0".into()),
    };
    let disk = PciDescription {
        address: "0000:00:1f.2".into(),
        class: 0x0106,
        vendor: 0x8086,
        device: 0xa182,
        names: vec!["sda".into()],
        switch: None,
        ..gpu.clone()
    };
    assert_eq!(found.pci_devices, [disk, gpu], "and no bus controller, which nobody wants to be near to");
    Machine::new(&found).unwrap();

    // An L3 that is less than its package, as on machines with several of them in a NUMA node.
    let text = export("pack:1 [numa(memory=64GB)] l3:2 core:2 pu:1");
    let (first, second) = text.split_at(text.rfind("</object>\n      <object type=\"L3Cache\"").unwrap());
    let found = describe(&format!("{first}{BRIDGES}{second}")).unwrap().description;
    assert_eq!(found.pci_devices[1].cpus, list("0-1"));
}

#[test]
fn kinds_groups_huge_pages_and_unusable_cpus() {
    let kinds =
        r#"<cpukind cpuset="0x0000000f" forced_efficiency="0"/><cpukind cpuset="0x000000f0" forced_efficiency="9"/>"#;
    let found = describe(&small("</topology>", &format!("{kinds}</topology>"))).unwrap().description;
    let told: Vec<(i32, String)> =
        found.cpu_kinds.iter().map(|kind| (kind.efficiency, kind.cpus.to_string())).collect();
    assert_eq!(told, [(0, "0-3".to_owned()), (1, "4-7".to_owned())]);

    let pages = r#"<page_type size="4096" count="15625000"/>"#;
    let huge = r#"<page_type size="4096" count="1000"/><page_type size="2097152" count="9"/><page_type size="1073741824" count="0"/>"#;
    let found = describe(&small(pages, huge)).unwrap().description;
    assert_eq!(found.numa_nodes[0].huge_pages, [HugePages { page_bytes: 2 << 20, count: 9 }], "none of 1 GiB");

    let hbm = small("type=\"NUMANode\" os_index=\"1\"", "type=\"NUMANode\" subtype=\"HBM\" os_index=\"1\"");
    let kinds: Vec<_> = describe(&hbm).unwrap().description.numa_nodes.into_iter().map(|node| node.kind).collect();
    assert_eq!(kinds, [None, Some("HBM".to_owned())]);

    let cluster = r#"<object type="Group" subtype="Cluster" cpuset="0x0000000f" complete_cpuset="0x0000000f" nodeset="0x1" complete_nodeset="0x1" gp_index="77" kind="222" subkind="0" dont_merge="1">"#;
    let text = export("pack:1 [numa(memory=64GB)] l3:1 core:4 pu:2");
    let text = text.replacen(
        "<object type=\"Core\" os_index=\"0\"",
        &format!("{cluster}<object type=\"Core\" os_index=\"0\""),
        1,
    );
    let text =
        text.replacen("<object type=\"Core\" os_index=\"2\"", "</object><object type=\"Core\" os_index=\"2\"", 1);
    let found = describe(&text).unwrap().description;
    assert_eq!(found.clusters.iter().map(|cluster| cluster.cpus.to_string()).collect::<Vec<_>>(), ["0-3"]);

    let allowed = small("allowed_cpuset=\"0x000000ff\"", "allowed_cpuset=\"0x0000007e\"");
    let complete = allowed.replacen("complete_cpuset=\"0x000000ff\"", "complete_cpuset=\"0x00000fff\"", 1);
    let found = describe(&complete).unwrap().description;
    assert_eq!((found.disallowed.to_string(), found.offline.to_string()), ("0,7".to_owned(), "8-11".to_owned()));
    let machine = Machine::new(&found).unwrap();
    assert_eq!(
        (machine.cpus(), machine.regular_core_count()),
        (&list("1-6"), 2),
        "a core of which half is left is none"
    );
}

#[test]
fn lies_of_an_xml_are_named() {
    let judged = |from: &str, to: &str| Machine::new(&describe(&small(from, to)).unwrap().description).unwrap_err();
    // Objects that contradict each other: hwloc itself ends the process over these.
    let core = "type=\"Core\" os_index=\"1\" cpuset=";
    let moved = judged(&format!("{core}\"0x0000000c\""), &format!("{core}\"0x00000014\""));
    assert_eq!(moved, MachineError::Overlap { field: Field::Cores, first: 1, second: 2, cpus: list("4") });
    let beyond = judged(&format!("{core}\"0x0000000c\""), &format!("{core}\"0x0000010c\""));
    assert_eq!(beyond, MachineError::CoreOutside { core: 1, field: Field::Packages, cpus: list("8") });
    let twice = judged("type=\"NUMANode\" os_index=\"1\"", "type=\"NUMANode\" os_index=\"0\"");
    assert_eq!(twice, MachineError::DuplicateId { field: Field::NumaNodes, id: 0 });
    let pages = r#"<page_type size="4096" count="15625000"/>"#;
    let above = judged(pages, &format!("{pages}<page_type size=\"2097152\" count=\"99999999\"/>"));
    assert_eq!(above, MachineError::HugePagesAboveMemory { numa: 0, memory_bytes: 64_000_000_000 });
    let odd = judged(pages, &format!("{pages}<page_type size=\"5000\" count=\"1\"/>"));
    assert_eq!(odd, MachineError::PageSize { numa: 0, page_bytes: 5000 });
    let matrix = |to: u32| {
        let ids = format!("<indexes length=\"4\">0 {to} </indexes><u64values length=\"12\">10 21 21 10 </u64values>");
        let open = r#"<distances2 type="NUMANode" nbobjs="2" kind="5" name="NUMALatency" indexing="os">"#;
        format!("{open}{ids}</distances2></topology>")
    };
    let far = judged("</topology>", &matrix(9));
    assert_eq!(far, MachineError::DistanceToUnknown { numa: 0, to: 9 });
    let honest = describe(&small("</topology>", &matrix(1))).unwrap();
    assert_eq!(Machine::new(&honest.description).unwrap().numa_distance(0, 1), Some(21));
}

#[test]
fn format_one_is_read_too() {
    let one = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc.dtd">
<topology>
 <object type="Machine" os_index="0" cpuset="0x0000000f" complete_cpuset="0x0000001f" online_cpuset="0x0000000f" allowed_cpuset="0x0000000f">
  <page_type size="4096" count="0"/>
  <object type="NUMANode" os_index="4" cpuset="0x0000000f" nodeset="0x00000010" local_memory="1073741824">
   <page_type size="4096" count="1000"/><page_type size="2097152" count="3"/>
   <object type="Socket" os_index="2" cpuset="0x0000000f">
    <object type="Cache" cpuset="0x0000000f" cache_size="8388608" depth="3" cache_type="0">
     <object type="Core" os_index="0" cpuset="0x00000003"><object type="PU" os_index="0" cpuset="0x1"/><object type="PU" os_index="1" cpuset="0x2"/></object>
     <object type="Core" os_index="1" cpuset="0x0000000c"><object type="PU" os_index="2" cpuset="0x4"/><object type="PU" os_index="3" cpuset="0x8"/></object>
    </object>
   </object>
  </object>
 </object>
</topology>"#;
    let found = describe(one).unwrap();
    let machine = Machine::new(&found.description).unwrap();
    assert_eq!((machine.package_ids(), machine.numa_ids(), machine.core_count()), (&[2][..], &[4][..], 2));
    assert_eq!(machine.numa_huge_pages(0), [HugePages { page_bytes: 2 << 20, count: 3 }]);
    assert_eq!((machine.l3_cpus(), machine.offline()), (&[list("0-3")][..], &list("4")));
    assert_eq!(found.gaps, []);

    let without = one.replace("NUMANode", "Group").replace("<page_type size=\"2097152\" count=\"3\"/>", "");
    let found = describe(&without).unwrap();
    assert_eq!(found.gaps, [Gap::NumaNodes, Gap::Memory]);
    assert_eq!(Machine::new(&found.description).unwrap().numa_ids(), [0]);
    let found = describe(&one.replace(" local_memory=\"1073741824\"", "")).unwrap();
    assert_eq!((found.gaps, found.description.numa_nodes[0].huge_pages.len()), (vec![Gap::Memory], 0));
}

fn refused(text: &str) -> XmlError {
    match describe(text) {
        Err(DiscoveryError::Xml(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_export_of_hwloc_is_refused() {
    let three = refused(&small("version=\"2.0\"", "version=\"3.0\""));
    assert_eq!(three, XmlError::Version { version: "3.0".into() });
    assert!(three.to_string().contains("formats 1 and 2"), "{three}");
    let whole = export(SMALL);
    for part in [whole.len() / 3, whole.len() / 2, whole.len() - 12] {
        let error = refused(&whole[..part]);
        assert!(matches!(error, XmlError::Truncated { .. }), "{error}");
    }
    assert_eq!(refused(""), XmlError::NoTopology { found: String::new() });
    assert!(matches!(refused("apiVersion: v1"), XmlError::NoTopology { .. }));
    assert!(matches!(refused("<html></html>"), XmlError::NoTopology { .. }));
    assert!(matches!(refused("<topology></topology><topology></topology>"), XmlError::NoTopology { .. }));
    assert!(matches!(refused("<topology></object>"), XmlError::Unbalanced { .. }));
    let entities = "<!DOCTYPE topology [<!ENTITY a \"aaaa\">]><topology>&a;</topology>";
    assert!(matches!(refused(entities), XmlError::Declaration { .. }));
}

#[test]
fn bounds_and_values() {
    assert_eq!(refused(&format!("<topology>{}", "<object>".repeat(200))), XmlError::TooDeep { max: 128 });
    let many = format!("<topology>{}</topology>", "<info/>".repeat(1 << 19));
    assert!(matches!(refused(&many), XmlError::TooManyElements { .. }));
}

#[test]
fn values_that_lie_are_named_by_their_attribute() {
    let value = |from: &str, to: &str| match refused(&small(from, to)) {
        XmlError::Value { attribute, .. } => attribute,
        other => panic!("{other:?}"),
    };
    let pu = "type=\"PU\" os_index=\"0\"";
    assert_eq!(value(pu, "type=\"PU\" os_index=\"4000000000\""), "os_index");
    assert_eq!(value(pu, "type=\"PU\" os_index=\"-1\""), "os_index");
    let missing = XmlError::Missing { object: "PU", attribute: "os_index" };
    assert_eq!(refused(&small(pu, "type=\"PU\"")), missing);
    assert_eq!(value("cpuset=\"0x0000000f\"", "cpuset=\"0xf...f\""), "cpuset");
    assert_eq!(value("cpuset=\"0x0000000f\"", &format!("cpuset=\"0x1{}\"", ",0x0".repeat(512))), "cpuset");
    assert_eq!(value("local_memory=\"", "local_memory=\"x"), "local_memory");
    let matrix = r#"<distances2 type="NUMANode" nbobjs="9" name="NUMALatency" indexing="os"><indexes>0 1</indexes></distances2>"#;
    assert_eq!(value("</topology>", &format!("{matrix}</topology>")), "u64values");
    assert_eq!(refused("<topology version=\"2.0\"></topology>"), XmlError::NoCpus);
}

#[test]
fn a_file_is_judged_by_its_length_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.xml");
    fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let input: TopologyInput = path.to_str().unwrap().parse().unwrap();
    let error = input.describe().unwrap_err();
    assert!(matches!(error, DiscoveryError::XmlTooLong { bytes: 104_857_600, .. }), "{error}");
    assert!(matches!(XmlSource::text(&" ".repeat(17 << 20)).describe(), Err(DiscoveryError::Xml(_))));
}

#[test]
fn machines_are_named_in_three_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("machine.XML");
    fs::write(&path, export(SMALL)).unwrap();
    let parse = |text: &str| text.parse::<TopologyInput>();
    let of_file = parse(path.to_str().unwrap()).unwrap().describe().unwrap();
    let of_text = parse(&format!("synthetic: {SMALL}")).unwrap().describe().unwrap();
    assert_eq!(of_file, of_text);
    assert_eq!(parse(folder.path().to_str().unwrap()).unwrap(), TopologyInput::Captured(folder.path().to_owned()));
    assert!(matches!(parse("machine.yaml"), Err(DiscoveryError::Input { .. })));
    assert!(matches!(parse("nowhere.xml").unwrap().describe(), Err(DiscoveryError::Read { .. })));
    let binary = folder.path().join("binary.xml");
    fs::write(&binary, [0xff, 0xfe, 0]).unwrap();
    assert!(matches!(parse(binary.to_str().unwrap()).unwrap().describe(), Err(DiscoveryError::Read { .. })));
}
