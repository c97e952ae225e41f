package secret

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
)

// awsSecret is a secret in AWS Secrets Manager, by name or ARN; of a secret that is a JSON object, # names the key:
//
//	aws-sm:billing/oauth#client_secret
//	aws-sm:arn:aws:secretsmanager:eu-west-1:123456789012:secret:billing-AbCdEf?region=eu-west-1&stage=AWSPENDING
//
// Region and credentials are found as by the AWS command line (environment, files, instance or pod role). After ? may stand
// region, stage (default AWSCURRENT), ttl (default 5m) and timeout (default 5s).
type awsSecret struct {
	*kept
	name, key, region, stage string
}

func newAWS(place string) (Source, error) {
	rest, key, _ := strings.Cut(place, "#")
	name, query, _ := strings.Cut(rest, "?")
	o, err := options(query, "region", "stage", "ttl", "timeout")
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("names no secret")
	}
	a := &awsSecret{name: name, key: key, region: o.Get("region"), stage: o.Get("stage")}
	if arn := strings.Split(name, ":"); a.region == "" && len(arn) >= 6 && arn[0] == "arn" {
		a.region = arn[3]
	}
	ttl, err := span(o, "ttl", storeTTL)
	limit, err2 := span(o, "timeout", storeLimit)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	a.kept = newKept(ttl, limit, a.read)
	return a, nil
}

func (a *awsSecret) read(ctx context.Context) (got fetched, err error) {
	load := []func(*config.LoadOptions) error{config.WithHTTPClient(awshttp.NewBuildableClient()), config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })}
	if a.region != "" {
		load = append(load, config.WithRegion(a.region))
	}
	c, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return got, errors.New("the settings of AWS (environment, ~/.aws) cannot be read")
	}
	if c.Region == "" {
		return got, errors.New("no region is known; set AWS_REGION, or write ?region=")
	}
	in := &secretsmanager.GetSecretValueInput{SecretId: &a.name}
	if a.stage != "" {
		in.VersionStage = &a.stage
	}
	out, err := secretsmanager.NewFromConfig(c, func(o *secretsmanager.Options) { o.HTTPClient = cutting{o.HTTPClient} }).GetSecretValue(ctx, in)
	if err != nil {
		return got, a.explain(err)
	}
	if out.CreatedDate != nil {
		got.changed = *out.CreatedDate
	}
	raw := out.SecretBinary
	if out.SecretString != nil {
		raw = []byte(*out.SecretString)
	}
	if a.key != "" {
		if raw, err = member(raw, a.key); err != nil {
			return got, err
		}
	}
	got.value, err = text(raw)
	return got, err
}

// cutting cuts answers that are longer than any secret.
type cutting struct{ secretsmanager.HTTPClient }

func (c cutting) Do(r *http.Request) (*http.Response, error) { return cut(c.HTTPClient.Do(r)) }

// member takes one text out of a JSON object.
func member(raw []byte, key string) ([]byte, error) {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil, fmt.Errorf("is no JSON object, so that there is no key %s", key)
	}
	value, ok := object[key]
	if !ok {
		return nil, fmt.Errorf("has no key %s: %w", key, ErrNotFound)
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return nil, fmt.Errorf("the key %s is no text", key)
	}
	return []byte(s), nil
}

// explain says what an error of AWS means and what to do; its message is left out.
func (a *awsSecret) explain(err error) error {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		if strings.Contains(err.Error(), "get credentials") || strings.Contains(err.Error(), "refresh cached credentials") {
			return fmt.Errorf("%w: no AWS credentials were found; give the host a role, or set AWS_PROFILE", ErrAway)
		}
		return away(err)
	}
	switch code := answer.ErrorCode(); code {
	case "ResourceNotFoundException":
		return fmt.Errorf("AWS has no such secret or version in %s; name, region and stage decide: %w", cmp.Or(a.region, "the region"), ErrNotFound)
	case "AccessDeniedException":
		return errors.New("AWS refuses to show it (AccessDeniedException): the role needs secretsmanager:GetSecretValue on it, and kms:Decrypt where it has a key of its own")
	case "DecryptionFailure", "InvalidRequestException", "InvalidParameterException":
		return fmt.Errorf("AWS cannot give it (%s): is it scheduled for deletion, or its KMS key disabled", code)
	case "ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException", "IncompleteSignature", "MissingAuthenticationToken", "InvalidClientTokenId":
		return fmt.Errorf("AWS refuses our own credentials (%s); renew the role or key that authvigil runs with", code)
	case "ThrottlingException", "InternalServiceError", "ServiceUnavailable", "RequestLimitExceeded":
		return fmt.Errorf("%w: AWS answered %s", ErrAway, code)
	default:
		if answer.ErrorFault() == smithy.FaultServer {
			return fmt.Errorf("%w: AWS answered %s", ErrAway, printable(code))
		}
		return fmt.Errorf("AWS answered %s", printable(code))
	}
}
