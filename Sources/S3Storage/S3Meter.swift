import CoreMetrics
import HTTPTransport

/// Counts what goes over the wire, by store.
struct S3Meter: Sendable {
  private let answered: Counter
  private let unanswered: Counter
  private let repeated: Counter
  private let sent: Counter
  private let received: Counter

  init(store: String) {
    let store = ("store", store)
    answered = Counter(label: "pgbackupd_store_requests", dimensions: [store, ("result", "answered")])
    unanswered = Counter(label: "pgbackupd_store_requests", dimensions: [store, ("result", "unanswered")])
    repeated = Counter(label: "pgbackupd_store_retries", dimensions: [store])
    sent = Counter(label: "pgbackupd_store_sent_bytes", dimensions: [store])
    received = Counter(label: "pgbackupd_store_received_bytes", dimensions: [store])
    // A rate begins with a known count.
    for one in [answered, unanswered, repeated, sent, received] { one.increment(by: 0) }
  }

  func answered(_ request: HTTPRequest, _ response: HTTPResponse) {
    answered.increment()
    sent.increment(by: request.body.count)
    received.increment(by: response.body.count)
  }

  func wasUnanswered() { unanswered.increment() }
  func repeats() { repeated.increment() }
}
