#include "page.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <vector>

namespace kdacheck::evidence {
namespace {

using nlohmann::json;

constexpr double width = 640, height = 400, left = 70, right = 190, top = 20, bottom = 50;

struct Point {
  std::string kernel;
  double intensity, rate;
};

/// Both axes are logarithmic.
struct Frame {
  double x_least, x_most, y_least, y_most;
  double x(double value) const { return left + (width - left - right) * std::log(value / x_least) / std::log(x_most / x_least); }
  double y(double value) const {
    return height - bottom - (height - top - bottom) * std::log(value / y_least) / std::log(y_most / y_least);
  }
};

std::string text(double x, double y, const std::string& words, const char* anchor = "start") {
  char line[256];
  std::snprintf(line, sizeof line, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
  return line + words + "</text>\n";
}
std::string segment(double x, double y, double to_x, double to_y, const char* style) {
  char line[256];
  std::snprintf(line, sizeof line, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x, y, to_x, to_y, style);
  return line;
}

} // namespace

std::string roofline_of(const json& evidence) {
  const json& peak = evidence.value("matrix_product_flops_per_second", json());
  std::vector<Point> points;
  std::vector<std::string> kernels;
  for (const json& row : evidence["timing"])
    if (row.contains("flops") && row["flops"] > 0 && row["bytes"] > 0) {
      points.push_back({row["kernel"], row["flops"].get<double>() / row["bytes"].get<double>(),
                        row["flops"].get<double>() / (row["median_ms"].get<double>() * 1e-3)});
      if (std::find(kernels.begin(), kernels.end(), points.back().kernel) == kernels.end()) kernels.push_back(points.back().kernel);
    }
  if (points.empty() || !peak.is_number()) return "";
  const double bandwidth = evidence["copy_bytes_per_second"], product = peak, knee = product / bandwidth;
  Frame frame{knee, knee, product, 1.5 * product};
  for (const Point& point : points) {
    frame.x_least = std::min(frame.x_least, point.intensity / 1.5), frame.x_most = std::max(frame.x_most, point.intensity * 1.5);
    frame.y_least = std::min(frame.y_least, point.rate / 1.5), frame.y_most = std::max(frame.y_most, point.rate * 1.5);
  }
  frame.x_most = std::max(frame.x_most, 1.5 * knee);
  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height
      << "\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  const char* grid = "stroke=\"#dddddd\"";
  for (int exponent = -3; exponent < 18; ++exponent)
    for (bool vertical : {true, false}) {
      const double value = std::pow(10.0, exponent);
      if (vertical && value >= frame.x_least && value <= frame.x_most) {
        out << segment(frame.x(value), top, frame.x(value), height - bottom, grid);
        out << text(frame.x(value), height - bottom + 15,
                    exponent < 0 ? "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + "1"
                                 : "1" + std::string(static_cast<std::size_t>(exponent), '0'),
                    "middle");
      }
      if (!vertical && value >= frame.y_least && value <= frame.y_most) {
        out << segment(left, frame.y(value), width - right, frame.y(value), grid);
        char words[32];
        std::snprintf(words, sizeof words, "%g", value * 1e-12);
        out << text(left - 6, frame.y(value) + 4, words, "end");
      }
    }
  const char* ceiling = "stroke=\"#c62828\" stroke-dasharray=\"5 3\"";
  const double from = std::max(frame.x_least, frame.y_least / bandwidth);
  out << segment(frame.x(from), frame.y(from * bandwidth), frame.x(knee), frame.y(product), ceiling);
  out << segment(frame.x(knee), frame.y(product), frame.x(frame.x_most), frame.y(product), ceiling);
  const std::vector<const char*> colours{"#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759",
                                         "#76b7b2", "#c2a000", "#9c755f", "#d37295", "#79706e"};
  const auto mark = [&](double x, double y, std::size_t kernel) {
    char line[200];
    const bool peer = kernels[kernel].starts_with("fla ");
    const char* colour = colours[kernel % colours.size()];
    std::snprintf(line, sizeof line,
                  peer ? "<path d=\"M%.1f %.1fl4 4l4 -4l-4 -4z\" fill=\"%s\"/>\n"
                       : "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n",
                  peer ? x - 4 : x, y, colour);
    out << line;
  };
  for (const Point& point : points)
    mark(frame.x(point.intensity), frame.y(point.rate),
         static_cast<std::size_t>(std::find(kernels.begin(), kernels.end(), point.kernel) - kernels.begin()));
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    const double y = top + 10 + 17 * static_cast<double>(i);
    mark(width - right + 16, y, i);
    out << text(width - right + 26, y + 4, kernels[i]);
  }
  out << text((left + width - right) / 2, height - 12, "operations per byte that must move", "middle");
  out << "<g transform=\"rotate(-90)\">" << text(-(height - bottom + top) / 2, 16, "TFLOP/s", "middle") << "</g>\n</svg>\n";
  return out.str();
}

} // namespace kdacheck::evidence
