# The job's secret: Terraform makes the place and never sees the value. Put it there once, from standard input:
#   openssl rand -hex 32 | aws secretsmanager put-secret-value --secret-id NAME-job --secret-string file:///dev/stdin
resource "aws_secretsmanager_secret" "job" {
  #checkov:skip=CKV2_AWS_57:Who changes the secret changes every pseudonym; releases of one secret belong together
  name        = "${var.name}-job"
  description = "Keys every draw and pseudonym of anonlib jobs, and the signature of their certificates."
  kms_key_id  = aws_kms_key.secret.arn
}

# A key apart from the workspace's, which may be deleted with the workspace while the secret signs on.
resource "aws_kms_key" "secret" {
  description         = "anonlib secret"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
}
