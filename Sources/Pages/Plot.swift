import Foundation
import Units

/// A curve over time.
struct Plot {
  let title: String
  let unit: (Double) -> String
  let points: [(time: Date, value: Double)]

  private static let (width, height, left, bottom) = (260.0, 110.0, 4.0, 16.0)

  var svg: String {
    let known = points.sorted { $0.time < $1.time }
    guard let first = known.first, let last = known.last else {
      return "<figure><figcaption>\(title)</figcaption><p>None yet.</p></figure>"
    }
    let top = max(known.map(\.value).max() ?? 1, 1e-9)
    let span = max(last.time.timeIntervalSince(first.time), 1)
    let places = known.map { point in
      (
        Self.left + point.time.timeIntervalSince(first.time) / span * (Self.width - 2 * Self.left),
        Self.height - Self.bottom - point.value / top * (Self.height - Self.bottom - 14)
      )
    }
    let line = places.map { "\(HTML.number($0.0)),\(HTML.number($0.1))" }.joined(separator: " ")
    // So many that they would touch are a curve already.
    let dots = (places.count > 60 ? [] : places).map {
      "<circle class=\"dot\" cx=\"\(HTML.number($0.0))\" cy=\"\(HTML.number($0.1))\" r=\"2\"/>"
    }
    let floor = HTML.number(Self.height - Self.bottom)
    return """
      <figure><figcaption>\(title): \(HTML.escaped(unit(last.value)))</figcaption>
      <svg role="img" viewBox="0 0 \(Int(Self.width)) \(Int(Self.height))" \
      aria-label="\(title) of \(known.count) backups, from \(HTML.escaped(unit(first.value))) to \(HTML.escaped(unit(last.value)))">
      <line class="axis" x1="0" x2="\(Int(Self.width))" y1="\(floor)" y2="\(floor)"/>
      <text x="\(Self.left)" y="10">\(HTML.escaped(unit(top)))</text>
      <text x="\(Self.left)" y="\(Int(Self.height) - 3)">\(first.time.rfc3339.prefix(10))</text>
      <text x="\(Int(Self.width - Self.left))" y="\(Int(Self.height) - 3)" text-anchor="end">\(last.time.rfc3339.prefix(10))</text>
      <polyline class="curve" points="\(line)"/>\(dots.joined())</svg></figure>
      """
  }
}
