output "buckets" {
  description = "For output.uri and workspace.uri of a job file."
  value       = { for place, bucket in aws_s3_bucket.place : place => bucket.id }
}

output "roles" {
  description = "For the annotation eks.amazonaws.com/role-arn of the service accounts."
  value       = { for name, role in aws_iam_role.role : name => role.arn }
}

output "instance_profiles" {
  description = "For infra/aws/cluster.yaml."
  value       = { head = aws_iam_instance_profile.head.arn, worker = aws_iam_instance_profile.worker.arn }
}

output "secrets" {
  description = "Where the job's secrets are to be put: `job` draws, `signing` signs."
  value       = { for name, secret in aws_secretsmanager_secret.job : name => secret.arn }
}

output "security_group" {
  description = "For SecurityGroupIds in infra/aws/cluster.yaml; null without var.vpc."
  value       = one(aws_security_group.cluster[*].id)
}
