import Foundation
import Units

/// A year of results, a square for each day (UTC), a column for each week.
struct Calendar {
  var database: String
  var days: [Int: DayResult]
  var today: Date

  private static let cell = 12.0
  private static let left = 28.0
  private static let top = 16.0

  var html: String {
    let last = Int((today.timeIntervalSince1970 / 86_400).rounded(.down))
    // 1970-01-01 was a Thursday; weeks begin on Monday.
    func weekday(_ day: Int) -> Int { ((day + 3) % 7 + 7) % 7 }
    let first = last - weekday(last) - 52 * 7
    // All that is as it should be is one shape: a page of many databases has hundreds of thousands of days.
    var plain: [String: String] = ["none": "", "sound": ""]
    var squares = ""
    var months = ""
    var month = ""
    for day in first...last {
      let (column, row) = ((day - first) / 7, weekday(day))
      let (x, y) = (Self.left + Double(column) * Self.cell, Self.top + Double(row) * Self.cell)
      let date = "\(Date(timeIntervalSince1970: Double(day) * 86_400).rfc3339.prefix(10))"
      // A month whose name would run into the next one's has none.
      if row == 0, date.prefix(7) != month, date.dropFirst(8).prefix(2) <= "14" {
        month = String(date.prefix(7))
        let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][
          (Int(date.dropFirst(5).prefix(2)) ?? 1) - 1]
        if column < 51 { months += "<text x=\"\(HTML.number(x))\" y=\"10\">\(name)</text>" }
      }
      let path = "M\(Int(x)) \(Int(y))h10v10h-10z"
      switch days[day] {
      case nil: plain["none"]? += path
      case let result? where result.failed == 0: plain["sound"]? += path
      case let result?: squares += square(result, date, x, y)
      }
    }
    let known = days.filter { $0.key >= first }
    let failed = known.filter { $0.value.failed > 0 }
    let width = Self.left + 53 * Self.cell
    let label =
      "A year of \(database): \(HTML.plural(known.count - failed.count, "day")) with successes only, "
      + "\(HTML.plural(failed.count, "day")) with failures"
    let rows = [("Mon", 0), ("Wed", 2), ("Fri", 4)].map {
      "<text x=\"0\" y=\"\(HTML.number(Self.top + Double($0.1) * Self.cell + 9))\">\($0.0)</text>"
    }
    return """
      <div class="wide late" id="days-\(HTML.escaped(database))" role="region" tabindex="0" aria-label="\(HTML.escaped("Calendar of \(database)"))">
      <svg class="calendar" role="img" aria-label="\(HTML.escaped(label))" viewBox="0 0 \(Int(width)) 102" width="\(Int(width))" height="102">
      \(months)\(rows.joined())\(plain.sorted { $0.key < $1.key }.map { "<path class=\"\($0)\" d=\"\($1)\"/>" }.joined())\(squares)</svg></div>
      <p class="legend"><span class="key ok">succeeded</span> <span class="key mixed">failed, and succeeded</span> \
      <span class="key open">failed</span> <span class="key none">no run</span></p>
      \(failed.isEmpty ? "" : failures(failed))
      """
  }

  private func square(_ result: DayResult, _ date: String, _ x: Double, _ y: Double) -> String {
    let place = "x=\"\(HTML.number(x))\" y=\"\(HTML.number(y))\""
    let state = result.succeeded > 0 ? "mixed" : "damaged"
    // Not by colour alone: what failed has a bar through it.
    let bar =
      "<path class=\"bar\" d=\"M \(HTML.number(x + 2)) \(HTML.number(y + 8)) L \(HTML.number(x + 8)) \(HTML.number(y + 2))\"/>"
    return
      "<g><title>\(date): \(result.succeeded) succeeded, \(result.failed) failed</title>"
      + "<rect class=\"\(state)\" \(place) width=\"10\" height=\"10\" rx=\"2\"/>\(bar)</g>"
  }

  private func failures(_ failed: [Int: DayResult]) -> String {
    let lines = failed.sorted { $0.key > $1.key }.prefix(60).map { day, result in
      "<li>\(Date(timeIntervalSince1970: Double(day) * 86_400).rfc3339.prefix(10)): \(result.failed) failed, \(result.succeeded) succeeded</li>"
    }
    return
      "<details id=\"failed-\(HTML.escaped(database))\"><summary id=\"days-failed-\(HTML.escaped(database))\">\(HTML.plural(failed.count, "day")) with failures</summary><ul>\(lines.joined())</ul></details>"
  }
}
