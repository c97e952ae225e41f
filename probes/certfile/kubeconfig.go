package certfile

import (
	"bytes"
	"encoding/base64"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/authvigil/authvigil/probes/evidence"
)

func looksLikeKubeconfig(b []byte) bool {
	head := b[:min(len(b), 64<<10)]
	return bytes.Contains(head, []byte("certificate-authority-data")) || bytes.Contains(head, []byte("client-certificate-data")) ||
		bytes.Contains(head, []byte("kind: Config")) || bytes.Contains(head, []byte(`"kind":"Config"`))
}

// parseKubeconfig reads the certificates that stand in a kubeconfig itself.
func parseKubeconfig(b []byte) (list []Entry, err error) {
	var config struct {
		Clusters []struct {
			Name    string
			Cluster struct {
				Data string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Data string `yaml:"client-certificate-data"`
			}
		}
	}
	if err := yaml.Unmarshal(b, &config); err != nil {
		return nil, failed("bad_kubeconfig", "is no YAML document")
	}
	add := func(name, data string) error {
		if data == "" || len(list) >= mostEntries {
			return nil
		}
		der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(data))
		if err != nil {
			return failed("bad_kubeconfig", "has data of %q that is not base64", evidence.Clean(name, 64))
		}
		certs, err := parsePEM(der)
		if err != nil {
			return failed("bad_kubeconfig", "has data of %q that cannot be read: %s", evidence.Clean(name, 64), err.Error())
		}
		for _, c := range certs {
			list = append(list, Entry{evidence.Clean(name, 64), c})
		}
		return nil
	}
	for _, u := range config.Users {
		if err := add("user "+u.Name, u.User.Data); err != nil {
			return list, err
		}
	}
	for _, c := range config.Clusters {
		if err := add("cluster "+c.Name, c.Cluster.Data); err != nil {
			return list, err
		}
	}
	if len(list) == 0 {
		return nil, failed("no_certificate", "holds no certificate in itself; name the files that it points to")
	}
	return list, nil
}
