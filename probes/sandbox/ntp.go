package sandbox

import (
	"encoding/binary"
	"sync"
	"time"
)

// A TimeServer answers NTP (RFC 5905) at port 123 of its name.
type TimeServer struct {
	host *Host

	mu     sync.Mutex // owns what follows
	faults NTPFaults  // without its Faults, which the host keeps
}

// NTPFaults are what can go wrong at a time server. The zero value is a server of stratum 2 that tells true time. Clock says
// how wrong its time is: positive when it is ahead. Delay is the round trip to it, half of it in each direction. Answer, Only
// and what concerns TLS have no meaning here; a Line that is not Open is silence, or, in memory, what Dial says.
type NTPFaults struct {
	Faults

	// Stratum of the server; 0: 2. Kiss makes it 0.
	Stratum int
	// Kiss is a kiss-o'-death code, such as RATE, DENY or RSTR.
	Kiss string
	// Unsynchronised sets the leap indicator to 3 and the stratum to 16.
	Unsynchronised bool
	// Leap is the leap indicator: 1 a second will be inserted, 2 one will be deleted.
	Leap int
	// RootDelay and RootDispersion are the distance to the server's own reference; 0: a few milliseconds.
	RootDelay, RootDispersion time.Duration
	// Unreferenced is for how long the server has not heard of its reference.
	Unreferenced time.Duration
	// Silent answers nothing.
	Silent bool
	// Garbage answers with bytes that mean nothing; Short cuts the answer to 20 bytes.
	Garbage, Short bool
	// OtherOrigin answers as if another packet had been asked, as who forges answers does.
	OtherOrigin bool
}

// ServeNTP adds a time server under a name.
func (w *World) ServeNTP(name string) *TimeServer {
	t := &TimeServer{}
	s := &service{packets: t.answer}
	t.host = w.add(name, "udp/123", s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clocks[name] = t
	return t
}

// NTP gives a time server by its name. It panics when there is none.
func (w *World) NTP(name string) *TimeServer {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.clocks[name]
	if t == nil {
		panic("sandbox: there is no time server " + name)
	}
	return t
}

// Set changes what is wrong with the time server.
func (t *TimeServer) Set(change func(f *NTPFaults)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.host.Set(func(common *Faults) {
		t.faults.Faults = *common
		change(&t.faults)
		*common = t.faults.Faults
	})
}

// Reset takes all faults away.
func (t *TimeServer) Reset() { t.Set(func(f *NTPFaults) { *f = NTPFaults{} }) }

// Faults gives a copy of what is wrong at present.
func (t *TimeServer) Faults() NTPFaults {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults
	f.Faults = t.host.Faults()
	return f
}

// answer makes the answer to a packet (RFC 5905 section 7.3); nil: none.
func (t *TimeServer) answer(packet []byte) []byte {
	f := t.Faults()
	if f.Silent || f.Line != Open || len(packet) < 48 {
		return nil
	}
	t.host.w.seen.packet(t.host.Name)
	t.travel(f.Delay / 2)
	defer t.travel(f.Delay / 2)
	received := t.host.now()
	b := make([]byte, 48)
	if f.Garbage {
		for n := range b {
			b[n] = 0xa5
		}
		return b
	}
	stratum, leap := f.Stratum, f.Leap
	if stratum == 0 {
		stratum = 2
	}
	reference := [4]byte{192, 0, 2, 1}
	switch {
	case f.Kiss != "":
		stratum, leap = 0, 3
		reference = [4]byte{}
		copy(reference[:], f.Kiss)
	case f.Unsynchronised:
		stratum, leap = 16, 3
	case stratum == 1:
		reference = [4]byte{'G', 'P', 'S', 0}
	}
	const server = 4
	version := packet[0] >> 3 & 7
	b[0] = byte(leap)<<6 | version<<3 | server
	b[1] = byte(stratum)
	b[2] = 6    // poll: 64 s
	b[3] = 0xec // precision: 2^-20 s
	binary.BigEndian.PutUint32(b[4:], ntpShort(orDefault(f.RootDelay, 2*time.Millisecond)))
	binary.BigEndian.PutUint32(b[8:], ntpShort(orDefault(f.RootDispersion, 3*time.Millisecond)))
	copy(b[12:], reference[:])
	binary.BigEndian.PutUint64(b[16:], ntpTime(received.Add(-orDefault(f.Unreferenced, 10*time.Second))))
	copy(b[24:32], packet[40:48]) // origin: what the client wrote as transmit time
	if f.OtherOrigin {
		b[31] ^= 0xff
	}
	binary.BigEndian.PutUint64(b[32:], ntpTime(received))
	binary.BigEndian.PutUint64(b[40:], ntpTime(t.host.now()))
	if f.Short {
		b = b[:20]
	}
	return b
}

// travel is the way of a packet in one direction.
func (t *TimeServer) travel(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.host.w.ctx.Done():
	}
}

func orDefault(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

// ntpTime is seconds since 1900 and a fraction, 32 bits each.
func ntpTime(t time.Time) uint64 {
	const since1900 = 2208988800
	fraction := uint64(t.Nanosecond()) << 32 / 1e9
	return uint64(t.Unix()+since1900)<<32 | fraction
}

// ntpShort is seconds and a fraction, 16 bits each.
func ntpShort(d time.Duration) uint32 { return uint32(d.Seconds() * 65536) }
