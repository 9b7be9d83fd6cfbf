import Quoting

/// One metric with all its series.
package struct MetricFamily: Sendable, Equatable {
  package enum Kind: String, Sendable {
    case gauge
    /// Its series are named with `_total`.
    case counter
  }

  package struct Series: Sendable, Equatable {
    package var labels: [(name: String, value: String)]
    package var value: Double

    package init(_ labels: [(name: String, value: String)], _ value: Double) {
      self.labels = labels
      self.value = value
    }

    package static func == (left: Series, right: Series) -> Bool {
      left.value == right.value && left.labels.map(\.name) == right.labels.map(\.name)
        && left.labels.map(\.value) == right.labels.map(\.value)
    }
  }

  /// Without `_total`.
  package var name: String
  package var kind: Kind
  /// One sentence.
  package var help: String
  package var series: [Series]

  package init(_ name: String, _ kind: Kind, _ help: String, _ series: [Series] = []) {
    self.name = name
    self.kind = kind
    self.help = help
    self.series = series
  }

  package mutating func add(_ value: Double?, _ labels: (name: String, value: String)...) {
    if let value { series.append(Series(labels, value)) }
  }
}

/// Metrics as text, in the two forms that Prometheus reads.
package enum MetricsText {
  package enum Format: Sendable {
    /// OpenMetrics 1.0, which a scraper asks for by its Accept header.
    case openMetrics
    /// Prometheus's own text format, version 0.0.4.
    case prometheus

    /// - Parameter accept: the request's Accept header.
    package init(accept: String?) {
      self = accept?.contains(bytes: "application/openmetrics-text") == true ? .openMetrics : .prometheus
    }

    package var contentType: String {
      switch self {
      case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
      case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
      }
    }
  }

  /// Families without a series are left out: what was not measured is not zero.
  package static func render(_ families: [MetricFamily], _ format: Format) -> String {
    var text = ""
    for family in families where !family.series.isEmpty {
      let suffix = family.kind == .counter ? "_total" : ""
      let name = format == .openMetrics ? family.name : family.name + suffix
      text += "# HELP \(name) \(MetricsLabel.help(family.help, escapingQuotes: format == .openMetrics))\n"
      text += "# TYPE \(name) \(family.kind.rawValue)\n"
      for series in family.series {
        let labels = series.labels.map { "\($0.name)=\"\(MetricsLabel.value($0.value))\"" }.joined(separator: ",")
        text += "\(family.name)\(suffix)\(labels.isEmpty ? "" : "{\(labels)}") \(number(series.value))\n"
      }
    }
    return text + (format == .openMetrics ? "# EOF\n" : "")
  }

  private static func number(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
    return value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value))" : "\(value)"
  }
}
