package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// maxLabel and maxAnnotation bound what one text of an alert may take, so that no batch grows beyond what receivers read.
	maxLabel      = 256
	maxAnnotation = 4 << 10
)

// alertmanager posts to the v2 API of one Alertmanager. All instances of a cluster are told, without a load balancer.
type alertmanager struct {
	URLs   []string `koanf:"urls" help:"addresses of all Alertmanagers of the cluster; required"`
	poster `koanf:",squash"`
}

func newAlertmanager(decode func(any) error, env Env) ([]*Receiver, error) {
	a := &alertmanager{}
	if err := decode(a); err != nil {
		return nil, err
	}
	if len(a.URLs) == 0 {
		return nil, errors.New("urls: is missing")
	}
	var list []*Receiver
	var errs []error
	for k, text := range a.URLs {
		u, err := address(text)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("urls: %w, such as http://am1.example.com:9093", err))
			continue
		case slices.Contains(a.URLs[:k], text):
			errs = append(errs, fmt.Errorf("urls: %s stands there twice", u.Host))
			continue
		}
		i := &instance{poster: a.poster, where: u.JoinPath("api/v2/alerts").String()}
		if err := i.build(env); err != nil {
			return nil, err // the same for each
		}
		list = append(list, &Receiver{Sink: i, Name: u.Host + strings.TrimSuffix(u.Path, "/")})
	}
	return list, errors.Join(errs...)
}

type instance struct {
	poster
	where string
}

// posted is an alert as the v2 API takes it.
type posted struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	Generator   string            `json:"generatorURL,omitempty"`
}

func (i *instance) Send(ctx context.Context, batch []Notice) error {
	list := make([]posted, len(batch))
	for k, n := range batch {
		list[k] = postedOf(n)
	}
	body, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	a, err := i.post(ctx, i.where, body, http.Header{"Content-Type": {"application/json"}})
	if err == nil && a.isPage() {
		return fmt.Errorf("POST %s answered %d with a web page: this is no Alertmanager, or a login stands before it", i.host(), a.status)
	}
	return err
}

func (i *instance) host() string {
	u, err := url.Parse(i.where)
	if err != nil {
		return i.where
	}
	return u.Host
}

// Seen asks the Alertmanager what it makes of an alert: who will be told, or what keeps it back.
func (i *instance) Seen(ctx context.Context, n Notice) (string, error) {
	filter := url.Values{"filter": {fmt.Sprintf("alertname=%q", n.Name), fmt.Sprintf("culprit=%q", n.Culprit)}}
	a, err := i.ask(ctx, http.MethodGet, i.where+"?"+filter.Encode(), nil, nil)
	if err != nil {
		return "", err
	}
	var list []struct {
		Receivers []struct{ Name string }
		Status    struct {
			State                   string
			SilencedBy, InhibitedBy []string
		}
	}
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
		return "", fmt.Errorf("GET %s answered %d, and not with alerts", i.host(), a.status)
	}
	if len(list) == 0 {
		return "", errors.New("the Alertmanager took the alert and does not show it: a limit of alerts by name may drop it")
	}
	var names []string
	for _, r := range list[0].Receivers {
		names = append(names, r.Name)
	}
	switch s := list[0].Status; {
	case len(s.SilencedBy) > 0:
		return "nobody is told: a silence matches", nil
	case len(s.InhibitedBy) > 0:
		return "nobody is told: another alert inhibits it", nil
	default:
		return "goes to " + strings.Join(names, ", ") + " when group_wait is over", nil
	}
}

func postedOf(n Notice) posted {
	p := posted{Labels: map[string]string{}, Annotations: map[string]string{"summary": cut(n.Summary, maxAnnotation)}, StartsAt: n.StartsAt.UTC(), EndsAt: n.EndsAt.UTC()}
	for name, value := range n.Labels {
		p.Labels[name] = cut(strings.ToValidUTF8(value, "\uFFFD"), maxLabel)
	}
	p.Labels["alertname"], p.Labels["severity"], p.Labels["culprit"] = n.Name, string(n.Severity), cut(strings.ToValidUTF8(n.Culprit, "\uFFFD"), maxLabel)
	for name, value := range n.Details {
		if name == "generator_url" {
			p.Generator = value
			continue
		}
		if value != "" {
			p.Annotations[name] = cut(strings.ToValidUTF8(value, "\uFFFD"), maxAnnotation)
		}
	}
	return p
}
