package spike

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// A world is a seeded stream of requests with labelled authentication incidents: sessions of clients whose shares are
// skewed, tokens that lapse, an endpoint with a challenge per use, dead clients, guessing from the internet, and the kinds
// of events that the package promises to tell apart. Everything follows from the seed.
type world struct {
	name     string
	seed     uint64
	perSec   float64 // mean requests per second
	clients  int
	days     float64
	train    float64 // days nothing is scored in
	web      bool    // sessions of a web application instead of calls of an API
	dirty    bool    // challenge endpoint, dead clients, guessing
	head     float64 // share of the greatest client
	shape    func(minute int) float64
	gapHours [2]float64
}

// A tick of the world: one line of a log.
type line struct {
	at       float64 // seconds
	status   int
	endpoint string
	client   string
}

// A label is one incident and what is expected of the detector.
type label struct {
	kind, class  string // class: page, ticket, silent
	onset, end   float64
	endpoints    []string
	clients      []string
	n401, excess int
}

const genesis = 1767571200 // Monday 2026-01-05

var kindsOfEvents = []struct{ kind, class string }{
	{"outage", "page"}, {"outage_drop", "page"}, {"step20", "page"}, {"step5", "page"}, {"ramp", "page"},
	{"one_endpoint", "page"}, {"burst60", "page"}, {"one_client", "ticket"}, {"stuffing", "ticket"}, {"brute1", "ticket"},
	{"scanner", "ticket"}, {"flash", "silent"}, {"drop", "silent"}, {"refresh_wave", "silent"},
	{"outage", "page"}, {"outage_drop", "page"}, {"step20", "page"}, {"ramp", "page"}, {"one_endpoint", "page"},
}

type maker struct {
	world
	rnd    *rand.Rand
	lines  []line
	labels []label
	cum    []float64 // cumulated shares of clients
	expiry []float64 // of each client's token
	lazy   []bool    // the client refreshes only after a 401
	waved  []int     // the last wave that killed the client's token
}

// make produces the lines in order of time, and the labels.
func (w world) make() ([]line, []label) {
	m := &maker{world: w, rnd: rand.New(rand.NewPCG(w.seed, 401))}
	m.population()
	m.incidents()
	m.traffic()
	if w.dirty {
		m.noise()
	}
	m.attacks()
	slices.SortStableFunc(m.lines, func(a, b line) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	m.count()
	return m.lines, m.labels
}

func (m *maker) population() {
	total := 0.0
	w := make([]float64, m.clients)
	for i := 1; i < m.clients; i++ {
		w[i] = math.Pow(float64(i), -0.8) * math.Exp(0.3*m.rnd.NormFloat64())
		total += w[i]
	}
	w[0] = total * m.head / (1 - m.head)
	total += w[0]
	sum := 0.0
	for i := range w {
		sum += w[i] / total
		m.cum = append(m.cum, sum)
		m.expiry = append(m.expiry, genesis+3600*m.rnd.Float64())
		m.lazy = append(m.lazy, m.rnd.Float64() < 0.5)
		m.waved = append(m.waved, -1)
	}
}

func (m *maker) incidents() {
	order := m.rnd.Perm(len(kindsOfEvents))
	gap := m.gapHours
	if gap[1] == 0 {
		gap = [2]float64{5, 11}
	}
	t := genesis + m.train*86400 + 3600*m.rnd.Float64()*2
	for i := 0; ; i++ {
		if i > 0 && i%len(order) == 0 {
			order = m.rnd.Perm(len(kindsOfEvents))
		}
		k := kindsOfEvents[order[i%len(order)]]
		l := label{kind: k.kind, class: k.class, onset: t}
		minutes := map[string]float64{"outage": 20, "outage_drop": 25, "step20": 30, "step5": 45, "ramp": 120, "one_endpoint": 30,
			"burst60": 1, "one_client": 60, "stuffing": 40, "brute1": 20, "scanner": 3, "flash": 20, "drop": 30, "refresh_wave": 10}[k.kind]
		l.end = t + 60*minutes
		if l.end > genesis+m.days*86400-3600 {
			return
		}
		switch k.kind {
		case "one_endpoint":
			l.endpoints = []string{"/api/items"}
			if m.web {
				l.endpoints = []string{"/app/edit"}
			}
		case "one_client":
			l.clients = []string{fmt.Sprintf("c%d", 3+m.rnd.IntN(min(22, m.clients-4)))}
		}
		m.labels = append(m.labels, l)
		t = l.end + 3600*(gap[0]+(gap[1]-gap[0])*m.rnd.Float64())
	}
}

func (m *maker) event(t float64) (*label, int) {
	i, _ := slices.BinarySearchFunc(m.labels, t, func(l label, t float64) int {
		if l.end < t {
			return -1
		}
		return 1
	})
	if i < len(m.labels) && m.labels[i].onset <= t {
		return &m.labels[i], i
	}
	return nil, -1
}

func (m *maker) add(at float64, status int, endpoint, client string) {
	m.lines = append(m.lines, line{math.Round(at*10) / 10, status, endpoint, client})
}

func (m *maker) status() int {
	u := m.rnd.Float64()
	for _, s := range []struct {
		p float64
		s int
	}{{0.0025, 304}, {0.0025, 404}, {0.0025, 403}, {0.0025, 500}} {
		if u -= s.p; u < 0 {
			return s.s
		}
	}
	return 200
}

func (m *maker) pick() int {
	i, _ := slices.BinarySearch(m.cum, m.rnd.Float64())
	return min(i, m.clients-1)
}

func (m *maker) traffic() {
	mean := 8.0
	if !m.web {
		mean = 5
	}
	drift := 0.0
	for minute := 0; minute < int(m.days*1440); minute++ {
		start := genesis + 60*float64(minute)
		drift = 0.97*drift + 0.08*m.rnd.NormFloat64()
		rate := m.perSec * m.shape(minute) * math.Exp(drift)
		if e, _ := m.event(start + 30); e != nil {
			switch {
			case e.kind == "flash":
				rate *= 4
			case e.kind == "drop":
				rate *= 0.1
			case e.kind == "outage_drop" && start > e.onset+300:
				rate *= 0.2
			}
		}
		for range m.poisson(rate * 60 / mean) {
			c := m.pick()
			n := 1 + int(m.rnd.ExpFloat64()*(mean-0.5))
			t := start + 60*m.rnd.Float64()
			for range n {
				t = m.request(t, c) + 0.05 + m.rnd.ExpFloat64()*1.5
			}
		}
	}
	for i := range m.labels {
		if e := &m.labels[i]; e.kind == "one_client" { // retries hard
			var c int
			fmt.Sscanf(e.clients[0], "c%d", &c)
			for t := e.onset + 400*m.rnd.Float64(); t < e.end; t += 20 + m.rnd.ExpFloat64()*max(20, 12/m.perSec) {
				m.request(t, c)
			}
		}
	}
}

func (m *maker) poisson(mean float64) int {
	n, p, limit := 0, m.rnd.Float64(), math.Exp(-mean)
	for p > limit && n < 100000 {
		n++
		p *= m.rnd.Float64()
	}
	return n
}

var (
	apiMix = []struct {
		p        float64
		endpoint string
	}{{0.45, "/api/items"}, {0.12, "/api/me"}, {0.25, "/api/orders"}, {0.08, "/static"}, {0.03, "/healthz"}, {0.02, "/login"}, {0.05, "/v2/"}}
	webMix = []struct {
		p        float64
		endpoint string
	}{{0.38, "/app"}, {0.12, "/app/edit"}, {0.05, "/dav/"}, {0.05, "/login"}, {0.40, "/static"}}
)

// request makes one request of an ordinary client, with what follows from it, and returns when it was over.
func (m *maker) request(t float64, c int) float64 {
	mix, token := apiMix, "/oauth/token"
	if m.web {
		mix, token = webMix, "/login"
	}
	u, endpoint := m.rnd.Float64(), mix[0].endpoint
	for _, x := range mix {
		if u -= x.p; u < 0 {
			endpoint = x.endpoint
			break
		}
	}
	challenge := endpoint == "/v2/" || endpoint == "/dav/"
	if challenge && !m.dirty {
		endpoint, challenge = mix[0].endpoint, false
	}
	name := fmt.Sprintf("c%d", c)
	if endpoint == "/static" || endpoint == "/healthz" {
		m.add(t, m.status(), endpoint, name)
		return t
	}
	refused := func(t float64, endpoint string) bool {
		e, _ := m.event(t)
		if e == nil {
			return false
		}
		switch e.kind {
		case "outage", "outage_drop", "burst60":
			return true
		case "step20":
			return m.rnd.Float64() < 0.2
		case "step5":
			return m.rnd.Float64() < 0.05
		case "ramp":
			return m.rnd.Float64() < 0.3*min(1, (t-e.onset)/5400)
		case "one_endpoint":
			return endpoint == e.endpoints[0]
		case "one_client":
			return name == e.clients[0]
		}
		return false
	}
	if !challenge && endpoint != "/login" {
		_, wave := m.event(t)
		dead := wave >= 0 && m.labels[wave].kind == "refresh_wave" && m.waved[c] != wave
		if dead || t > m.expiry[c] {
			if dead {
				m.waved[c] = wave
			}
			m.expiry[c] = t + 3600
			if dead || m.lazy[c] && m.rnd.Float64() < 0.6 {
				m.add(t, 401, endpoint, name)
				t += 0.2
			}
			if refused(t, token) {
				m.add(t, 401, token, name)
			} else {
				m.add(t, m.status(), token, name)
			}
			t += 0.1
		}
	}
	if challenge {
		m.add(t, 401, endpoint, name)
		t += 0.1
	}
	if refused(t, endpoint) {
		m.add(t, 401, endpoint, name)
		if e, _ := m.event(t); e != nil && e.kind != "outage" && m.rnd.Float64() < 0.6 { // a retry
			t += 0.3 + m.rnd.ExpFloat64()
			if refused(t, endpoint) {
				m.add(t, 401, endpoint, name)
			} else {
				m.add(t, m.status(), endpoint, name)
			}
		}
		return t
	}
	if endpoint == "/login" && m.rnd.Float64() < 0.05 { // mistyped
		m.add(t, 401, endpoint, name)
		t += 1 + m.rnd.ExpFloat64()*8
	}
	m.add(t, m.status(), endpoint, name)
	return t
}

// noise adds dead clients that poll for ever, and guessing from the internet in bursts.
func (m *maker) noise() {
	end := genesis + m.days*86400
	protected := "/api/items"
	if m.web {
		protected = "/app"
	}
	for z := range 1 + m.rnd.IntN(3) {
		every := 200 + 300*m.rnd.Float64()
		for t := genesis + every*m.rnd.Float64(); t < end; t += every + 5*m.rnd.NormFloat64() {
			m.add(t, 401, protected, fmt.Sprintf("z%d", z))
		}
	}
	for t := float64(genesis); t < end; t += m.rnd.ExpFloat64() * 8000 {
		n := 6
		if u := m.rnd.Float64(); u < 0.05 {
			n = 40 + m.rnd.IntN(110)
		} else if u < 0.4 {
			n = 1 + m.rnd.IntN(12)
		}
		who := fmt.Sprintf("i%x", m.rnd.IntN(60))
		for u := t; n > 0; n-- {
			m.add(u, 401, "/login", who)
			u += 1 + m.rnd.ExpFloat64()*4
		}
	}
}

func (m *maker) attacks() {
	protected := []string{"/api/items", "/api/me", "/api/orders", "/login", "/oauth/token"}
	if m.web {
		protected = []string{"/app", "/app/edit", "/dav/", "/login"}
	}
	for i, e := range m.labels {
		answer := func(t float64, endpoint, client string, success float64) {
			if m.rnd.Float64() < success {
				m.add(t, 200, endpoint, client)
				return
			}
			m.add(t, 401, endpoint, client)
		}
		switch e.kind {
		case "stuffing":
			step := 5 + 6*m.rnd.Float64()
			if m.perSec > 0.5 {
				step /= 2
			}
			for t := e.onset; t < e.end; t += m.rnd.ExpFloat64() * step {
				answer(t, "/login", fmt.Sprintf("a%d.%d", i, m.rnd.IntN(300)), 0.02)
			}
		case "brute1":
			for t := e.onset; t < e.end; t += m.rnd.ExpFloat64() * 2 {
				answer(t, "/login", fmt.Sprintf("b%d", i), 0)
			}
		case "scanner":
			for t := e.onset; t < e.end; t += m.rnd.ExpFloat64() * 0.65 {
				answer(t, protected[m.rnd.IntN(len(protected))], fmt.Sprintf("s%d", i), 0)
			}
		}
	}
}

// count fills in how many 401s each event has, and how many above the rate of the hour before.
func (m *maker) count() {
	in := func(from, to float64) (n int) {
		i, _ := slices.BinarySearchFunc(m.lines, from, func(l line, t float64) int {
			if l.at < t {
				return -1
			}
			return 1
		})
		for ; i < len(m.lines) && m.lines[i].at <= to; i++ {
			if m.lines[i].status == 401 {
				n++
			}
		}
		return n
	}
	for i := range m.labels {
		e := &m.labels[i]
		e.n401 = in(e.onset, e.end)
		e.excess = e.n401 - int(math.Round(float64(in(e.onset-3600, e.onset))*(e.end-e.onset)/3600))
	}
}

// diurnal is a day of work: low at night, two humps, quieter at weekends.
func diurnal(night, weekend float64) func(minute int) float64 {
	return func(minute int) float64 {
		h := float64(minute%1440) / 60
		day := 0.5 - 0.5*math.Cos((h-3)/24*2*math.Pi)
		v := night + (1-night)*day*day*1.8
		if d := (minute / 1440) % 7; d >= 5 {
			v *= weekend
		}
		return v
	}
}

// flat traffic with a beat of half an hour, as from scheduled jobs.
func beating(minute int) float64 {
	if minute%30 < 4 {
		return 2.2
	}
	return 0.85
}

// weekly is a service of a business: busy in working hours of five days, nearly idle at night and at weekends, with a slow rise over
// the weeks.
func weekly(minute int) float64 {
	h, day := minute%1440/60, minute/1440
	v := 0.1
	if day%7 < 5 && h >= 7 && h < 19 {
		v = 1.9
	}
	return v * (1 + 0.03*float64(day))
}

// bursty is a service that something else sets in motion: quiet, and for a quarter of an hour now and then five times as busy.
func bursty(minute int) float64 {
	if h := uint32(minute/15) * 2654435761; h>>28 == 3 {
		return 5
	}
	return 0.75
}

func flat(int) float64 { return 1 }

// worlds makes a suite of traces from one seed.
func worlds(seed uint64) []world {
	return []world{
		{name: "web-low-dirty", seed: seed*10 + 1, perSec: 0.2, clients: 90, days: 8, train: 1.5, web: true, dirty: true, head: 0.4, shape: diurnal(0.3, 0.6)},
		{name: "api-tiny-dirty", seed: seed*10 + 2, perSec: 0.045, clients: 25, days: 14, train: 1.5, dirty: true, head: 0.75, shape: diurnal(0.5, 0.8)},
		{name: "api-low-clean", seed: seed*10 + 3, perSec: 0.2, clients: 80, days: 8, train: 1.5, head: 0.5, shape: diurnal(0.4, 0.7)},
		{name: "api-med-dirty", seed: seed*10 + 4, perSec: 0.8, clients: 300, days: 5, train: 1, dirty: true, head: 0.22, shape: diurnal(0.25, 0.5)},
		{name: "api-low-dirty", seed: seed*10 + 5, perSec: 0.15, clients: 40, days: 10, train: 1.5, dirty: true, head: 0.3, shape: beating},
		{name: "web-tiny-clean", seed: seed*10 + 6, perSec: 0.06, clients: 60, days: 12, train: 1.5, web: true, head: 0.3, shape: diurnal(0.2, 0.5)},
		{name: "api-high-flat", seed: seed*10 + 7, perSec: 1.5, clients: 900, days: 2.2, train: 1, dirty: true, head: 0.1, shape: flat},
		{name: "api-low-bursty", seed: seed*10 + 8, perSec: 0.25, clients: 30, days: 8, train: 1.5, dirty: true, head: 0.3, shape: bursty},
		{name: "web-low-weekly", seed: seed*10 + 9, perSec: 0.3, clients: 200, days: 9, train: 1.5, web: true, dirty: true, head: 0.15, shape: weekly},
	}
}
