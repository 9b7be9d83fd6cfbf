import Foundation
import Units

/// An age, or a duration, against its objective: an arc that is full when the objective is reached.
struct Gauge {
  var title: String
  /// Nil where there is none, or nothing was measured.
  var seconds: Double?
  var objective: Double?
  /// What stands in place of the figure where there is none.
  var missing: String
  var note: String?
  /// Whether having none is as bad as having too old a one; else it is only not known.
  var isNeeded = true
  /// Until when the first one has time.
  var grace: Date?
  /// What is wrong, whatever the figure says.
  var failure: String?
  /// What nobody has measured, where that may still break the objective.
  var unmeasured: String?

  private var state: String {
    if failure != nil { return "bad" }
    guard let seconds else { return objective == nil ? "unknown" : isNeeded && grace == nil ? "bad" : "close" }
    guard let objective else { return "unknown" }
    if seconds <= objective, unmeasured != nil { return "unknown" }
    return seconds > objective ? "bad" : seconds > objective * 0.9 ? "close" : "good"
  }

  private var verdict: String {
    if let failure { return failure }
    guard let objective else { return "no objective" }
    let bound = Duration.seconds(objective).spoken
    if seconds == nil, let grace { return "the first has time until \(grace.rfc3339)" }
    guard seconds != nil else { return "objective \(bound)" }
    switch state {
    case "bad": return "MISSED, objective \(bound)"
    case "close": return "at risk, objective \(bound)"
    case "unknown": return "\(unmeasured ?? "something"): not measured, objective \(bound)"
    default: return "met, objective \(bound)"
    }
  }

  var html: String {
    let figure = seconds.map { $0 < 1 ? "<1s" : Duration.seconds($0).spoken } ?? missing
    // A word that does not fit into the arc stands below it.
    let fits = figure.count <= 9
    let below = [
      fits ? nil : "<strong>\(HTML.escaped(figure))</strong>",
      note.map { "<span class=\"soft\">\(HTML.escaped($0))</span>" },
    ]
    .compactMap { $0 }.joined(separator: " ")
    let share = objective.flatMap { bound in seconds.map { min(100, max(1, $0 / bound * 100)) } } ?? 0
    let arc = "d=\"M 12 62 A 48 48 0 0 1 108 62\" pathLength=\"100\""
    return """
      <figure class="gauge \(state)"><figcaption>\(title)</figcaption>
      <svg role="img" viewBox="0 0 120 70" width="120" height="70" aria-label="\(HTML.escaped("\(title): \(figure), \(verdict)"))">
      <path class="rail" \(arc)/>\(share > 0 ? "<path class=\"arc\" \(arc) stroke-dasharray=\"\(HTML.number(share)) 100\"/>" : "")
      \(fits ? "<text x=\"60\" y=\"58\" text-anchor=\"middle\" class=\"figure\">\(HTML.escaped(figure))</text>" : "")</svg>
      \(below.isEmpty ? "" : "<p>\(below)</p>")<p class="state">\(HTML.escaped(verdict))</p></figure>
      """
  }
}
