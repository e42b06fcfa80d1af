// The messages that the two APIs share have the same fields.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include "dataplane/agent.pb.h"
#include "flowkeep/v1/flowkeep.pb.h"

namespace flowkeep {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

void expect_same_fields(const Descriptor& ours, const Descriptor& theirs) {
  SCOPED_TRACE(ours.full_name() + " and " + theirs.full_name());
  for (int i = 0; i < theirs.field_count(); ++i) {
    const FieldDescriptor& expected = *theirs.field(i);
    const FieldDescriptor* field = ours.FindFieldByNumber(expected.number());
    ASSERT_NE(field, nullptr) << expected.full_name();
    EXPECT_EQ(field->name(), expected.name());
    EXPECT_EQ(field->type(), expected.type()) << expected.full_name();
    EXPECT_EQ(field->label(), expected.label()) << expected.full_name();
    if (expected.type() == FieldDescriptor::TYPE_MESSAGE) {
      expect_same_fields(*field->message_type(), *expected.message_type());
    }
  }
}

TEST(NodeLink, MessagesSharedWithTheNodeApiHaveItsFields) {
  expect_same_fields(*v1::NodeStatus::descriptor(), *node::v1::NodeStatus::descriptor());
  expect_same_fields(*v1::FunctionReportRequest::descriptor(),
                     *node::v1::FunctionReportRequest::descriptor());
  expect_same_fields(*v1::Timeouts::descriptor(), *node::v1::Timeouts::descriptor());
  expect_same_fields(*v1::FunctionReport::descriptor(), *node::v1::FunctionReport::descriptor());
  expect_same_fields(*v1::ListFlowsRequest::descriptor(),
                     *node::v1::ListFlowsRequest::descriptor());
  expect_same_fields(*v1::ListFlowsResponse::descriptor(),
                     *node::v1::ListFlowsResponse::descriptor());
  expect_same_fields(*v1::DrillProgress::descriptor(), *node::v1::DrillProgress::descriptor());
}

}  // namespace
}  // namespace flowkeep
