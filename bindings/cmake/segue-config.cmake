# find_package(segue) brings these targets:
#   segue::segue   the shared library, for C
#   segue::static  the static library, for C
#   segue::cpp     the C++17 headers, over the shared library
# A C++ program that wants the static library links segue::static and asks for C++17 itself: the
# headers stand in the same directory.

include("${CMAKE_CURRENT_LIST_DIR}/segue-targets.cmake")
