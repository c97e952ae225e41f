package exporters

import (
	"slices"

	"github.com/authvigil/authvigil/agent"
)

type peerName struct{ name, method string }

// peerShown is the clock of another server on display, while a probe knows of it.
type peerShown struct {
	skew, bound, disagree *series
	probes                map[string]bool
}

// showPeers shows what is known of other clocks. Several probes may know of one; it goes when none does any more. The table's
// mutex is held.
func (p *Prometheus) showPeers(s *shown, ev *agent.Event) {
	if len(s.peers) == 0 && len(ev.Peers) == 0 {
		return
	}
	before := s.peers
	s.peers = nil
	for i := range ev.Peers {
		peer := &ev.Peers[i]
		key := peerName{peer.Name, peer.Method}
		one := p.peers[key]
		if one == nil {
			name, method := label{"peer", peer.Name}, label{"method", peer.Method}
			one = &peerShown{p.series("clock_peer_skew_seconds", name, method), p.series("clock_peer_bound_seconds", name, method), p.series("clock_peer_backends_disagree", name, method), map[string]bool{}}
			p.peers[key] = one
		}
		one.probes[ev.Probe] = true
		one.skew.value, one.bound.value, one.disagree.value = peer.Skew.Seconds(), peer.Bound.Seconds(), 0
		if peer.Disagree {
			one.disagree.value = 1
		}
		s.peers = append(s.peers, key)
	}
	p.dropPeers(ev.Probe, before, s.peers)
}

// dropPeers takes clocks off display that a probe knew of and does not know of any more, when no other does.
func (p *Prometheus) dropPeers(probe string, before, now []peerName) {
	for _, key := range before {
		one := p.peers[key]
		if one == nil || slices.Contains(now, key) {
			continue
		}
		delete(one.probes, probe)
		if len(one.probes) == 0 {
			for _, s := range []*series{one.skew, one.bound, one.disagree} {
				s.remove()
			}
			delete(p.peers, key)
		}
	}
}
