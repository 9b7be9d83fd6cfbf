import CoreMetrics
import MetricsText
import Testing

@Suite struct MetricsTextTests {
  private static let families: [MetricFamily] = {
    var size = MetricFamily("size_bytes", .gauge, "A \"size\", in\nbytes \\ octets.")
    size.add(1.5e9, ("database", "a \"b\" \\ c\nd"), ("store", "größe"))
    size.add(0.25, ("database", "x"))
    size.add(nil, ("database", "left out"))
    var runs = MetricFamily("runs", .counter, "Runs.")
    runs.add(3)
    return [size, MetricFamily("empty", .gauge, "Nothing."), runs]
  }()

  @Test func bothForms() {
    #expect(
      MetricsText.render(Self.families, .openMetrics) == """
        # HELP size_bytes A \\"size\\", in\\nbytes \\\\ octets.
        # TYPE size_bytes gauge
        size_bytes{database="a \\"b\\" \\\\ c\\nd",store="größe"} 1500000000
        size_bytes{database="x"} 0.25
        # HELP runs Runs.
        # TYPE runs counter
        runs_total 3
        # EOF

        """)
    #expect(
      MetricsText.render(Self.families, .prometheus) == """
        # HELP size_bytes A "size", in\\nbytes \\\\ octets.
        # TYPE size_bytes gauge
        size_bytes{database="a \\"b\\" \\\\ c\\nd",store="größe"} 1500000000
        size_bytes{database="x"} 0.25
        # HELP runs_total Runs.
        # TYPE runs_total counter
        runs_total 3

        """)
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    #expect(MetricsText.Format(accept: accept).contentType.hasPrefix("application/openmetrics-text"))
    #expect(MetricsText.Format(accept: nil).contentType.hasPrefix("text/plain"))
  }

  /// What is counted by swift-metrics is told under its labels; a store that is made anew goes on counting.
  @Test func counters() {
    let registry = MetricsRegistry(help: ["sent_bytes": "Bytes sent."])
    for _ in 0..<2 {
      let counter = Counter(label: "sent_bytes", dimensions: [("store", "offsite")], factory: registry)
      counter.increment(by: 21)
    }
    Counter(label: "unknown", dimensions: [], factory: registry).increment()
    var wanted = MetricFamily("sent_bytes", .counter, "Bytes sent.")
    wanted.add(42, ("store", "offsite"))
    #expect(registry.families == [wanted])
  }

  /// `"` behind a Prepend, LF in a CR LF and before an Extend: none of them ends the label or the line.
  @Test func aLabelForgesNoLineAndNoSeries() {
    var family = MetricFamily("size_bytes", .gauge, "\u{600}\"\r\nforged 1")
    family.add(1, ("database", "\u{600}\"} 9\r\nforged{a=\"\u{600}\\"), ("store", "\n\u{301}\"\u{301}"))
    for format in [MetricsText.Format.openMetrics, .prometheus] {
      let lines = MetricsText.render([family], format).utf8.split(separator: 10).map {
        String(decoding: $0, as: UTF8.self)
      }
      #expect(lines.count == (format == .openMetrics ? 4 : 3))
      #expect(
        lines[2].utf8.elementsEqual(
          "size_bytes{database=\"\u{600}\\\"} 9\r\\nforged{a=\\\"\u{600}\\\\\",store=\"\\n\u{301}\\\"\u{301}\"} 1".utf8)
      )
    }
  }
}
