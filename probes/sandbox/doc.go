// Package sandbox is a small internet: a certificate authority, an OpenID provider, an API that wants to be proved to in
// a dozen ways, and time servers, all under invented names below example.test, with a knob for every way in which such
// things fail. Tests run against it in memory, the command `authvigil demo` over loopback, with the same code.
//
// In memory no socket is opened. Connections are buffered and block on condition variables only, so that a whole daemon
// can live in a bubble of testing/synctest; make the World inside the bubble and close it before the bubble ends:
//
//	synctest.Test(t, func(t *testing.T) {
//		w := sandbox.New()
//		defer w.Close()
//		client := &http.Client{Transport: &http.Transport{
//			DialContext:     w.Dial,
//			TLSClientConfig: &tls.Config{RootCAs: w.Roots()},
//		}}
//		…
//		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Answer = sandbox.Status(503) })
//	})
//
// What goes wrong is said in faults and not in handlers. Faults that any server can have (its name, its line, its
// certificate, its clock, its answers) are in Faults; IdPFaults, APIFaults and NTPFaults add what only these can do wrong.
// All may be changed while requests are under way.
//
// The World keeps count of what it was asked and what it was shown, so that a test can say how many requests a fault cost
// and that no secret reached a host it was not meant for. Its secrets are constants of this package, worth nothing.
//
// Nothing here imports the rest of the module, and only tests and the command `demo` import it.
package sandbox
