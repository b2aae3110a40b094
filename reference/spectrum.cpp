#include "spectrum.hpp"

#include <Eigen/Dense>

#include <algorithm>

namespace kdacheck {
namespace {

using Map = Eigen::Map<const Eigen::VectorXd>;

Map vector_of(const std::vector<double>& x) { return Map(x.data(), static_cast<Eigen::Index>(x.size())); }

Eigen::MatrixXd dense(const Matrix<double>& A) {
  return Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(A.element.data(), A.rows, A.columns);
}

std::vector<double> singular_values_of(const Matrix<double>& A) {
  const Eigen::VectorXd values = Eigen::JacobiSVD<Eigen::MatrixXd>(dense(A)).singularValues();
  return {values.begin(), values.end()};
}

} // namespace

std::vector<double> eigenvalues(const Transition<double>& A) {
  const Eigen::VectorXd u = vector_of(A.alpha).cwiseSqrt().cwiseProduct(vector_of(A.k));
  Eigen::MatrixXd M = -A.beta * u * u.transpose();
  M.diagonal() += vector_of(A.alpha);
  const Eigen::VectorXd ascending = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(M, Eigen::EigenvaluesOnly).eigenvalues();
  std::vector<double> result(ascending.begin(), ascending.end());
  std::reverse(result.begin(), result.end());
  return result;
}

std::vector<std::complex<double>> eigenvalues(const DplrTransition<double>& A) {
  const Eigen::VectorXcd values = Eigen::EigenSolver<Eigen::MatrixXd>(dense(matrix_form(A)), false).eigenvalues();
  std::vector<std::complex<double>> result(values.begin(), values.end());
  std::sort(result.begin(), result.end(),
            [](const auto& x, const auto& y) { return x.real() != y.real() ? x.real() > y.real() : x.imag() > y.imag(); });
  return result;
}

std::vector<double> singular_values(const Transition<double>& A) { return singular_values_of(matrix_form(A)); }
std::vector<double> singular_values(const DplrTransition<double>& A) { return singular_values_of(matrix_form(A)); }

std::vector<double> singular_values(const Matrix<double>& A) { return singular_values_of(A); }

std::vector<double> symmetric_eigenvalues(const Matrix<double>& A) {
  const Eigen::VectorXd ascending = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(dense(A), Eigen::EigenvaluesOnly).eigenvalues();
  std::vector<double> result(ascending.begin(), ascending.end());
  std::reverse(result.begin(), result.end());
  return result;
}

double spectral_radius(const Transition<double>& A) {
  const std::vector<double> values = eigenvalues(A);
  return std::max(std::fabs(values.front()), std::fabs(values.back()));
}

double spectral_radius(const DplrTransition<double>& A) {
  double radius = 0;
  for (const auto& value : eigenvalues(A)) radius = std::max(radius, std::abs(value));
  return radius;
}

} // namespace kdacheck
