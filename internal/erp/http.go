package erp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"ordersync/internal/order"
)

// httpSource is a service that speaks the contract of docs/ERP.md.
type httpSource struct {
	base          *url.URL // without user and password
	authorization string   // the header; empty for none
	secrets       []string // what no error may quote
	client        *http.Client
	channel       order.Channel
	timeout       time.Duration
}

// Limits of what an answer may ask of us.
const (
	maxRetryAfter = time.Hour
	maxRedirects  = 5
	maxQuoted     = 300 // bytes of an answer in an error
	// shortestSecret is the length from which a parameter of ERP_URL may be a key. Without a limit, that of ?tenant=7
	// would mask every 7.
	shortestSecret = 6
)

func openHTTP(o Options) (Source, error) {
	base, err := url.Parse(o.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, errors.New("ERP_URL is no base URL: write https://host/path") // which may hold a password
	}
	s := &httpSource{channel: o.Channel, timeout: o.Timeout}
	user, password := o.User, o.Password
	if given := base.User; given != nil && user == "" {
		user = given.Username()
		password, _ = given.Password()
	}
	base.User, base.Fragment = nil, ""
	s.base = base
	switch {
	case o.Token != "" && user != "":
		return nil, errors.New("ERP_TOKEN and ERP_USERNAME are both given; one of them authorizes")
	case strings.ContainsFunc(o.Token, unicode.IsControl):
		return nil, errors.New("ERP_TOKEN has a control character, such as the end of a line")
	case o.Token != "":
		s.authorization, s.secrets = "Bearer "+o.Token, []string{o.Token}
	case user != "":
		basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		s.authorization, s.secrets = "Basic "+basic, []string{basic, password}
	}
	for _, values := range base.Query() { // some services are given a key there
		for _, value := range values {
			if len(value) >= shortestSecret {
				s.secrets = append(s.secrets, value)
			}
		}
	}
	s.client = &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			MaxConnsPerHost:     maxConns,
			MaxIdleConnsPerHost: maxConns,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		CheckRedirect: sameHost,
	}
	return s, nil
}

// sameHost follows a redirect only where the credentials may go.
func sameHost(r *http.Request, via []*http.Request) error {
	from := via[0].URL
	if r.URL.Scheme != from.Scheme || r.URL.Host != from.Host {
		return fmt.Errorf("it redirects to %s://%s, where the credentials are not sent; set ERP_URL to where the ERP is", r.URL.Scheme, r.URL.Host)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	}
	return nil
}

// Close closes the connections.
func (s *httpSource) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// answer is what a request brought.
type answer struct {
	// where is the request for people.
	where string
	body  []byte
	// at is the ERP's own clock where it tells it, ours otherwise, whichever is earlier.
	at time.Time
}

// get asks for a path below the base URL.
func (s *httpSource) get(ctx context.Context, path string, parameters url.Values) (answer, error) {
	asked := time.Now()
	target := s.base.JoinPath(path)
	query := s.base.Query()
	for name, values := range parameters {
		query[name] = values
	}
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return answer{}, errors.New("ERP_URL makes no request")
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "ordersync")
	if s.authorization != "" {
		request.Header.Set("Authorization", s.authorization)
	}
	where := s.where(path)
	response, err := s.client.Do(request)
	if err != nil {
		var quoting *url.Error // quotes the whole URL
		if errors.As(err, &quoting) {
			err = quoting.Err
		}
		return answer{}, fmt.Errorf("%s: %w", where, late(ctx, err))
	}
	defer response.Body.Close()
	at, erpTime := asked, asked
	if told, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		erpTime = told
		if told.Before(at) {
			at = told
		}
	}
	if response.StatusCode != http.StatusOK {
		return answer{}, s.refused(where, response, erpTime)
	}
	// The transport has decompressed it, so a small answer that becomes a huge one ends here too.
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("%s: read the answer: %w", where, late(ctx, err))
	case len(body) > maxAnswer:
		return answer{}, fmt.Errorf("%s: the answer has more than %d MiB: %w", where, maxAnswer>>20, ErrTooMuch)
	}
	return answer{where: where, body: bytes.TrimPrefix(body, byteOrderMark), at: at}, nil
}

// byteOrderMark stands before the answers of some servers, and belongs to no JSON.
var byteOrderMark = []byte("\xef\xbb\xbf")

// where is a request for people: with the path of ERP_URL, and without its parameters and credentials.
func (s *httpSource) where(path string) string {
	target := s.base.JoinPath(path)
	target.RawQuery = ""
	return "GET " + s.mask(target.Redacted())
}

// late is the error of an answer that did not come, or not to its end.
func late(ctx context.Context, err error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: it took longer than ERP_TIMEOUT: %w", ErrTooMuch, err)
}

// refused is the error of any status but 200. now is the ERP's clock, by which it gives dates.
func (s *httpSource) refused(where string, response *http.Response, now time.Time) error {
	start, _ := io.ReadAll(io.LimitReader(response.Body, 4*maxQuoted)) // as much as there is
	err := fmt.Errorf("%s: the ERP answers %s%s", where, response.Status, s.quote(start))
	status := response.StatusCode
	if status != http.StatusTooManyRequests && status < 500 {
		return err
	}
	after, ok := retryAfter(response.Header.Get("Retry-After"), now)
	if !ok {
		return err
	}
	return &Unavailable{After: after, Err: err}
}

// decimals are seconds with a fraction, which some servers write.
var decimals = regexp.MustCompile(`^[0-9]{1,9}\.[0-9]*$`)

// retryAfter reads seconds or a date.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.Atoi(header); err == nil && seconds >= 0 {
		return min(time.Duration(min(seconds, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter), true
	}
	if seconds, err := strconv.ParseFloat(header, 64); err == nil && decimals.MatchString(header) {
		return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second)), true
	}
	date, err := http.ParseTime(header)
	if err != nil {
		return 0, false
	}
	return min(max(date.Sub(now), 0), maxRetryAfter), true
}

// quote is the beginning of what the ERP says, in one line and without our credentials, should it
// say them.
func (s *httpSource) quote(body []byte) string {
	text := s.mask(string(body))
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "�"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if text == "" {
		return ""
	}
	return ": " + order.Clip(text, maxQuoted)
}

// mask hides our credentials, as they are and as they stand in a URL.
func (s *httpSource) mask(text string) string {
	for _, secret := range s.secrets {
		if secret == "" {
			continue
		}
		for _, form := range []string{secret, url.PathEscape(secret), url.QueryEscape(secret)} {
			text = strings.ReplaceAll(text, form, "***")
		}
	}
	return text
}

// list is an answer of either path.
type list struct {
	items []json.RawMessage
	next  string
	more  bool
}

// parse takes an answer apart. name is what it lists, single whether one item was asked for. An item that is no JSON is
// in the list as it came.
func (s *httpSource) parse(name string, a answer, single bool) (list, error) {
	fail := func(format string, args ...any) (list, error) {
		return list{}, fmt.Errorf("%s: %s; the answer begins%s", a.where, fmt.Sprintf(format, args...), s.quote(a.body[:min(len(a.body), 4*maxQuoted)]))
	}
	var fields map[string]json.RawMessage
	var l list
	if err := json.Unmarshal(a.body, &fields); err != nil {
		items, rest, salvageErr := salvage(name, a.body, single)
		if salvageErr == nil {
			fields, l.items = rest, items
		} else if len(a.body) > 1 && (a.body[0] == 0xff && a.body[1] == 0xfe || a.body[0] == 0xfe && a.body[1] == 0xff) {
			return fail("the answer is UTF-16, and JSON is UTF-8")
		} else if at := new(broken); errors.As(salvageErr, &at) {
			// One event that is cut at the wrong place takes others with it. In a smaller page it takes fewer.
			return list{}, &malformedPage{fmt.Errorf("%s: the answer is no JSON object: %w, in item %d of %q, at byte %d: …%s…",
				a.where, err, at.item, name, at.offset, strings.TrimPrefix(s.quote(around(a.body, at.offset)), ": "))}
		} else {
			return fail("the answer is no JSON object: %v", err)
		}
	} else {
		raw, ok := fields[name]
		if !ok {
			return fail("the answer has no field %q", name)
		}
		if err := json.Unmarshal(raw, &l.items); err != nil {
			return fail("%q is no list: %v", name, err)
		}
	}
	if more := fields["more"]; more != nil {
		if err := json.Unmarshal(more, &l.more); err != nil {
			return fail("%q is neither true nor false", "more")
		}
	}
	switch next := bytes.TrimSpace(fields["next"]); {
	case len(next) == 0 || string(next) == "null":
	case next[0] == '"':
		if err := json.Unmarshal(next, &l.next); err != nil {
			return fail("%q: %v", "next", err)
		}
	case digits(string(next)):
		l.next = string(next)
	default:
		return fail("%q is neither a string nor an integer", "next")
	}
	if len(l.next) > maxNext {
		return fail("%q has %d bytes, the limit is %d", "next", len(l.next), maxNext)
	}
	return l, nil
}

// around is what stands before and after a byte of an answer.
func around(body []byte, offset int) []byte {
	const each = 60
	offset = min(max(offset, 0), len(body))
	return body[max(0, offset-each):min(len(body), offset+each)]
}

// malformedPage is the error of an answer whose items cannot be told apart: one of fewer may do.
type malformedPage struct{ err error }

func (e *malformedPage) Error() string { return e.err.Error() }

// Unwrap is the reason.
func (e *malformedPage) Unwrap() error { return e.err }

// Is makes it one of ErrTooMuch, so that a smaller page is asked for.
func (e *malformedPage) Is(target error) bool { return target == ErrTooMuch }

// follow checks that an answer that has more behind it leads there.
func (s *httpSource) follow(where string, l list, after string) error {
	if l.more && (l.next == "" || l.next == after) {
		return fmt.Errorf("%s: the answer says that there is more, but its next %q has not moved", where, clip(l.next))
	}
	return nil
}
