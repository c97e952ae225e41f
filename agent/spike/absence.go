package spike

import "math"

const (
	window       = 10   // minutes that are looked at together
	expected     = 20   // requests in a window, less is too few to miss any
	leastPhi     = 2    // variance against the mean that is assumed at least: requests come in sessions
	tooUnlikely  = 1e-6 // chance of so few requests that raises TrafficAbsent
	perHour      = 60 / window
	hoursOfWeek  = 168
	seasonWeight = 1.0 / 24 // of one window in the average of its hour of the week: about four weeks
)

// A season is what traffic is usual in an hour of the week.
type season struct {
	hours   [hoursOfWeek]usualHour
	phi     float64 // variance of a window against its mean, at least 1
	minutes [window]float64
	minute  int64 // number of the present minute
	begun   int64
	least   [24]float64 // fewest requests of a window in each of the last 24 hours
	alert   *Alert
	low     bool
}

type usualHour struct{ mean, seen float64 }

func (s *season) begin(now int64) {
	s.minute, s.begun, s.minutes = now/60, now, [window]float64{}
	for i := range s.least {
		s.least[i] = 0
	}
}

func (s *season) count(now int64) { s.minutes[now/60%window]++ }

func (s *season) add(now int64, n int) { s.minutes[now/60%window] += float64(n) }

// absence looks at the traffic of the last ten minutes, once a minute.
func (d *Detector) absence() {
	s := &d.season
	m := d.now / 60
	if m == s.minute {
		return
	}
	s.minute = m
	sum := 0.0
	for _, n := range s.minutes {
		sum += n
	}
	defer func() { s.minutes[m%window] = 0 }()
	if d.now-s.begun < (window+1)*60 {
		return
	}
	hour := int(m/60) % 24
	if m%60 == 0 {
		s.least[hour] = math.Inf(1)
	}
	usual, gone := s.missing(m, sum)
	switch {
	case s.alert == nil && gone && !s.low:
		s.low = true // and again in a minute
	case s.alert == nil && gone:
		s.alert = &Alert{Name: TrafficAbsent, Severity: Warning, Endpoint: All, Pattern: AllEndpoints, Started: moment(d.now), Onset: moment(d.now - window*60),
			Requests: int(sum), Baseline: usual}
		s.alert.Because = []string{because("%.0f requests in ten minutes, usually %.0f", sum, usual)}
		s.alert.Description = describeAbsence(s.alert)
		d.tell(*s.alert)
	case s.alert != nil && sum >= s.alert.Baseline/3 && d.now-s.alert.Started.Unix() >= shortest,
		s.alert != nil && d.now-s.alert.Started.Unix() > day:
		s.alert.Ended, s.alert.How = moment(d.now), EndedRecovered
		s.alert.Requests = int(sum)
		s.alert.Description = describeAbsence(s.alert)
		d.tell(*s.alert)
		s.alert = nil
	case !gone:
		s.low = false
	}
	if s.alert == nil {
		if d.now-s.begun < day+window*60 || s.least[hour] > sum {
			s.least[hour] = sum
		}
		if m%window == 0 {
			s.learn(m, sum)
		}
	}
}

// missing says how many requests were to be expected in the last window, and whether so few mean that something is wrong.
// Until the hour was seen in a former week, only complete silence counts, against the quietest hour of the last day.
func (s *season) missing(m int64, sum float64) (usual float64, gone bool) {
	h := s.hours[m/60%hoursOfWeek]
	before := s.hours[(m-window)/60%hoursOfWeek]
	if h.seen >= perHour && before.seen >= perHour {
		usual = min(h.mean, before.mean)
		phi := max(leastPhi, s.phi)
		return usual, usual >= expected && sum < usual/2 && poissonTail(sum/phi, usual/phi) < tooUnlikely
	}
	if s.minute*60-s.begun < day+3600 {
		return 0, false
	}
	usual = math.Inf(1)
	for _, n := range s.least {
		usual = min(usual, n)
	}
	return usual, sum == 0 && usual >= expected
}

func (s *season) learn(m int64, sum float64) {
	h := &s.hours[(m-1)/60%hoursOfWeek]
	if h.seen >= perHour && h.mean > 1 {
		s.phi += 0.01 * ((sum-h.mean)*(sum-h.mean)/h.mean - s.phi)
	}
	h.seen++
	h.mean += (sum - h.mean) * max(1/h.seen, seasonWeight)
}

// poissonTail is the chance of at most x when m are expected.
func poissonTail(x, m float64) float64 {
	if x >= m {
		return 1
	}
	p, sum := math.Exp(-m), 0.0
	for k := 0.0; k <= x; k++ {
		sum += p
		p *= m / (k + 1)
	}
	return sum
}
