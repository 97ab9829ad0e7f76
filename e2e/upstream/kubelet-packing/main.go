// Command kubelet-packing answers, with the kubelet's own CPU manager as a library, which CPUs a container would get, and
// says how long each answer took: the rival of our choice in `cargo xtask bench choose`.
//
// Standard input: one JSON object a line, first the machine, then the questions. Standard output: one answer a question.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	cadvisor "github.com/google/cadvisor/info/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/state"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/utils/cpuset"
)

const (
	podUID    = "1"
	container = "work"
	// A machine of a thousand CPUs takes some tens of kilobytes.
	maxLineBytes = 1 << 20
)

// Core is one physical core.
type Core struct {
	// NUMANode, Socket and L3 are ids.
	NUMANode int `json:"numaNode"`
	Socket   int `json:"socket"`
	L3       int `json:"l3"`
	// Threads are CPU ids.
	Threads []int `json:"threads"`
}

// Machine is the first line.
type Machine struct {
	// Cores in the order of their NUMA nodes.
	Cores []Core `json:"cores"`
}

// Question is every other line.
type Question struct {
	// Way is one of the keys of `ways`.
	Way string `json:"way"`
	// Free CPUs in list form.
	Free string `json:"free"`
	// CPUs asked for.
	CPUs int64 `json:"cpus"`
	// Repeat the question so many times.
	Repeat int `json:"repeat"`
}

// Answer to a question.
type Answer struct {
	// CPUs given, in list form.
	CPUs string `json:"cpus"`
	// Nanoseconds of each repetition.
	Nanoseconds []int64 `json:"nanoseconds"`
}

// ways to ask: the CPU manager alone, the same with its option for L3 caches, and the topology manager's admission, which
// first looks for the fewest NUMA nodes.
var ways = map[string]struct {
	options  map[string]string
	admitted bool
}{
	"packed":         {},
	"packedByCaches": {options: map[string]string{cpumanager.PreferAlignByUnCoreCacheOption: "true"}},
	"admitted":       {admitted: true},
}

func main() {
	klog.SetLogger(logr.Discard())
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "kubelet-packing:", err)
		os.Exit(1)
	}
}

func serve() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLineBytes)
	if !lines.Scan() {
		return errors.Join(errors.New("no machine on standard input"), lines.Err())
	}
	var machine Machine
	if err := json.Unmarshal(lines.Bytes(), &machine); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	rivals := map[string]*rival{}
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var question Question
		if err := json.Unmarshal(lines.Bytes(), &question); err != nil {
			return fmt.Errorf("question: %w", err)
		}
		asked, known := rivals[question.Way]
		if !known {
			var err error
			if asked, err = newRival(machine, question.Way); err != nil {
				return fmt.Errorf("way %q: %w", question.Way, err)
			}
			rivals[question.Way] = asked
		}
		answer, err := asked.answer(question)
		if err != nil {
			return fmt.Errorf("%s for %d CPUs of %s: %w", question.Way, question.CPUs, question.Free, err)
		}
		if err := answers.Encode(answer); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	return lines.Err()
}

// rival is a static policy over a state in memory; it is the only hint provider of its topology manager.
type rival struct {
	logger   logr.Logger
	policy   cpumanager.Policy
	state    state.State
	affinity topologymanager.Manager
	admitted bool
}

func newRival(machine Machine, name string) (*rival, error) {
	way, known := ways[name]
	if !known {
		return nil, errors.New("unknown")
	}
	info := machine.info()
	logger := logr.Discard()
	discovered, err := topology.Discover(logger, info)
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	align := topologymanager.PolicyNone
	if way.admitted {
		align = topologymanager.PolicyBestEffort
	}
	affinity, err := topologymanager.NewManager(info.Topology, align, topologymanager.ContainerTopologyScope, nil)
	if err != nil {
		return nil, fmt.Errorf("topology manager: %w", err)
	}
	policy, err := cpumanager.NewStaticPolicy(logger, discovered, 0, cpuset.New(), affinity, way.options)
	if err != nil {
		return nil, fmt.Errorf("static policy: %w", err)
	}
	made := &rival{logger, policy, state.NewMemoryState(logger), affinity, way.admitted}
	affinity.AddHintProvider(logger, made)
	return made, nil
}

// answer gives the CPUs back after each repetition; only the giving is timed.
func (r *rival) answer(question Question) (Answer, error) {
	free, err := cpuset.Parse(question.Free)
	if err != nil {
		return Answer{}, fmt.Errorf("free: %w", err)
	}
	pod := podOf(question.CPUs)
	answer := Answer{Nanoseconds: make([]int64, 0, question.Repeat)}
	for range question.Repeat {
		r.state.SetDefaultCPUSet(free)
		began := time.Now()
		if err := r.give(pod); err != nil {
			return Answer{}, err
		}
		answer.Nanoseconds = append(answer.Nanoseconds, time.Since(began).Nanoseconds())
		given, _ := r.state.GetCPUSet(podUID, container)
		answer.CPUs = given.String()
		if err := r.policy.RemoveContainer(r.logger, r.state, podUID, container); err != nil {
			return Answer{}, fmt.Errorf("give back: %w", err)
		}
	}
	return answer, nil
}

func (r *rival) give(pod *v1.Pod) error {
	if !r.admitted {
		return r.Allocate(pod, &pod.Spec.Containers[0])
	}
	result := r.affinity.Admit(&lifecycle.PodAdmitAttributes{Pod: pod})
	if !result.Admit {
		return fmt.Errorf("%s: %s", result.Reason, result.Message)
	}
	return nil
}

// GetTopologyHints passes on what the policy says.
func (r *rival) GetTopologyHints(pod *v1.Pod, container *v1.Container) map[string][]topologymanager.TopologyHint {
	return r.policy.GetTopologyHints(r.logger, r.state, pod, container)
}

// GetPodTopologyHints passes on what the policy says.
func (r *rival) GetPodTopologyHints(pod *v1.Pod) map[string][]topologymanager.TopologyHint {
	return r.policy.GetPodTopologyHints(r.logger, r.state, pod)
}

// Allocate passes on what the policy says.
func (r *rival) Allocate(pod *v1.Pod, container *v1.Container) error {
	return r.policy.Allocate(r.logger, r.state, pod, container)
}

// AllocatePod passes on what the policy says.
func (r *rival) AllocatePod(pod *v1.Pod) error {
	return r.policy.AllocatePod(r.logger, r.state, pod)
}

// podOf is a Guaranteed pod of one container.
func podOf(cpus int64) *v1.Pod {
	amounts := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(cpus, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(1<<30, resource.BinarySI),
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "work", Namespace: "default", UID: types.UID(podUID)},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			Name:      container,
			Resources: v1.ResourceRequirements{Requests: amounts, Limits: amounts},
		}}},
		Status: v1.PodStatus{QOSClass: v1.PodQOSGuaranteed},
	}
}

// info is the machine as the kubelet is told of it.
func (m Machine) info() *cadvisor.MachineInfo {
	info := &cadvisor.MachineInfo{}
	sockets := map[int]bool{}
	for _, core := range m.Cores {
		nodes := len(info.Topology)
		if nodes == 0 || info.Topology[nodes-1].Id != core.NUMANode {
			info.Topology = append(info.Topology, cadvisor.Node{Id: core.NUMANode})
			nodes++
		}
		node := &info.Topology[nodes-1]
		node.Cores = append(node.Cores, cadvisor.Core{
			Id:           len(node.Cores),
			Threads:      core.Threads,
			SocketID:     core.Socket,
			UncoreCaches: []cadvisor.Cache{{Id: core.L3, Level: 3}},
		})
		sockets[core.Socket] = true
		info.NumCores += len(core.Threads)
		info.NumPhysicalCores++
	}
	info.NumSockets = len(sockets)
	return info
}
